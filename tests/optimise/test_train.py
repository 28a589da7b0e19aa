import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rich.console import Console

from diffhep.optimise import (
    Box,
    OtherCheckpointError,
    progress_bar,
    scale_updates,
    train,
)


KEY = jax.random.key(3)
OPTIMISER = optax.adam(0.1)


class Design(eqx.Module):
    pitch: jax.Array
    network: list[jax.Array]
    name: str = eqx.field(static=True, default="a")


def _start():
    return Design(jnp.asarray(2.0), [jnp.asarray([1.0, -1.0]), jnp.asarray([0.5])])


def _loss(params, key, step):
    noise = jax.random.normal(key, (2,), params.pitch.dtype)
    target = 0.5 + 0.1 * step.astype(params.pitch.dtype) / 100
    fit = jnp.sum((params.network[0] + 0.1 * noise) ** 2) + params.network[1][0] ** 4
    return (params.pitch - target) ** 2 + fit


def _train(num_steps=20, **options):
    options = {"optimiser": OPTIMISER, "key": KEY} | options
    return train(_loss, _start(), num_steps=num_steps, **options)


@pytest.fixture(scope="module")
def straight():
    return _train()


def _same(one, other):
    return all(
        np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    )


def test_training_lowers_the_loss_and_follows_optax(straight):
    params, state = _start(), OPTIMISER.init(_start())
    losses = []
    for i in range(3):
        key = jax.random.fold_in(KEY, i)
        loss, gradient = jax.value_and_grad(_loss)(params, key, jnp.asarray(i))
        with jax.numpy_dtype_promotion("standard"):
            updates, state = OPTIMISER.update(gradient, state)
        params = optax.apply_updates(params, updates)
        losses.append(loss)
    assert np.allclose(straight.losses[:3], losses, rtol=1e-12)
    assert straight.losses[-1] < straight.losses[0] / 2
    assert straight.resumed_at == 0


def test_training_in_both_precisions(precision):
    result = _train(num_steps=2)
    assert all(leaf.dtype == precision for leaf in jax.tree.leaves(result.params))


def _interrupt(error, at):
    def callback(step, loss, params):
        if step == at:
            raise error

    return callback


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("out of luck")])
def test_an_interrupted_training_goes_on_bit_by_bit(error, straight, tmp_path):
    path = tmp_path / "deeper" / "state.ckpt"
    with pytest.raises(type(error)):
        _train(checkpoint=path, checkpoint_every=5, callback=_interrupt(error, 13))
    header = json.loads(path.read_bytes().split(b"\n")[0])
    assert header["step"] == 13
    assert [file.name for file in path.parent.iterdir()] == ["state.ckpt"]
    result = _train(checkpoint=path)
    assert result.resumed_at == 13
    assert np.array_equal(result.losses, straight.losses)
    assert _same(result.params, straight.params)


def test_a_finished_training_is_not_repeated(straight, tmp_path):
    path = tmp_path / "state.ckpt"
    _train(checkpoint=path)
    calls = []
    again = _train(checkpoint=path, callback=lambda *x: calls.append(x))
    assert calls == []
    assert again.resumed_at == 20
    assert _same(again, eqx.tree_at(lambda r: r.resumed_at, straight, 20))


def test_a_killed_training_goes_on_from_its_last_checkpoint(straight, tmp_path):
    path, kept = tmp_path / "state.ckpt", {}

    def callback(step, loss, params):
        if step == 17:
            kept["bytes"] = path.read_bytes()  # what a kill would leave

    _train(checkpoint=path, checkpoint_every=5, callback=callback)
    path.write_bytes(kept["bytes"])
    result = _train(checkpoint=path)
    assert result.resumed_at == 15
    assert _same(result.params, straight.params)


def test_another_configuration_is_refused_or_overwritten(straight, tmp_path):
    path = tmp_path / "state.ckpt"
    _train(num_steps=2, checkpoint=path, fingerprint="one")
    with pytest.raises(OtherCheckpointError, match="another configuration; delete it"):
        _train(checkpoint=path, fingerprint="two")
    with pytest.raises(OtherCheckpointError):
        _train(checkpoint=path, fingerprint="one", key=jax.random.key(4))
    with pytest.raises(OtherCheckpointError):
        _train(checkpoint=path, fingerprint="one", optimiser=optax.sgd(0.1))
    result = _train(checkpoint=path, fingerprint="two", discard_other=True)
    assert result.resumed_at == 0
    assert _same(result.params, straight.params)


@pytest.mark.parametrize("keep", [0, 40, -9])
def test_a_damaged_checkpoint_is_a_sentence(keep, tmp_path):
    path = tmp_path / "state.ckpt"
    _train(num_steps=1, checkpoint=path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="is damaged and cannot be read; delete it"):
        _train(num_steps=1, checkpoint=path)


def test_a_checkpoint_that_cannot_be_written_is_found_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    calls = []
    with pytest.raises(ValueError, match="cannot be written"):
        _train(
            checkpoint=tmp_path / "file" / "state.ckpt",
            callback=lambda *x: calls.append(x),
        )
    assert calls == []


def test_a_gradient_that_is_not_finite_is_named(tmp_path):
    def loss(params, key, step):
        # The derivative of the root at zero is infinite; the value is not.
        return _loss(params, key, step) + jnp.sqrt(0.0 * params.network[1][0])

    path = tmp_path / "state.ckpt"
    with pytest.raises(FloatingPointError, match=r"gradient of \.network\[1\] is not"):
        train(
            loss, _start(), optimiser=OPTIMISER, num_steps=3, key=KEY, checkpoint=path
        )
    assert json.loads(path.read_bytes().split(b"\n")[0])["step"] == 0


def test_a_loss_that_is_not_finite_is_named():
    def loss(params, key, step):
        # In value only: the derivative of a constant is zero.
        return _loss(params, key, step) + jnp.inf

    with pytest.raises(FloatingPointError, match="the loss is inf"):
        train(loss, _start(), optimiser=OPTIMISER, num_steps=1, key=KEY)


def test_constraints_hold_from_the_beginning():
    seen = []
    _train(
        num_steps=5,
        constraints=[(lambda p: p.pitch, Box(1.7, 1.9))],
        callback=lambda step, loss, params: seen.append(float(params.pitch)),
    )
    assert max(seen) <= 1.9
    assert seen[-1] == 1.7


def test_scales_make_the_steps(precision):
    scales = [
        (lambda p: p.network, 10.0),
        (lambda p: p.network[1], 0.0),
        (lambda p: p.pitch, 0.01),
    ]
    optimiser = optax.chain(OPTIMISER, scale_updates(_start(), scales))
    moved = _train(num_steps=1, optimiser=optimiser).params
    # Adam's first step is the rate times the sign of the gradient. (Its 1 - 0.999 is
    # good to 1e-5 in single precision.)
    assert np.isclose(moved.pitch, 2.0 - 0.1 * 0.01, rtol=1e-6)
    assert np.allclose(jnp.abs(moved.network[0] - _start().network[0]), 1.0, rtol=1e-4)
    assert np.array_equal(moved.network[1], _start().network[1])
    assert moved.pitch.dtype == precision


def test_a_negative_scale_is_a_sentence():
    with pytest.raises(ValueError, match=r"The scale -1\.0 is negative"):
        scale_updates(_start(), [(lambda p: p.pitch, -1.0)])


def test_large_arrays_travel_as_arguments():
    def loss(target, params, key, step):
        return jnp.sum((params - target) ** 2)

    partial = eqx.Partial(loss, jnp.asarray([1.0, 2.0]))
    result = train(
        partial, jnp.zeros(2), optimiser=optax.sgd(0.5), num_steps=1, key=KEY
    )
    assert np.allclose(result.params, [1.0, 2.0])


def test_progress_without_a_terminal_writes_few_lines(capsys):
    with progress_bar("Working", total=1000, completed=1) as advance:
        for _ in range(999):
            advance("loss 1")
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("Working: 1000/1000, ")
    assert lines[0].endswith("/s loss 1")


def test_progress_in_a_terminal_and_none(tmp_path, capsys):
    with (tmp_path / "out").open("w") as file:
        console = Console(file=file, force_terminal=True, width=100)
        with progress_bar("Working", total=2, console=console) as advance:
            advance("")
            advance("loss 7")
    assert "2/2" in (tmp_path / "out").read_text()
    with progress_bar(None, total=2) as advance:
        advance("never shown")
    assert capsys.readouterr().err == ""

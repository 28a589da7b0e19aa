"""Oracles for gradients, estimators and stages. Each raises `AssertionError`."""

from ._gradient import check_gradient as check_gradient
from ._padding import (
    check_padding_inert as check_padding_inert,
    live as live,
    poison as poison,
)
from ._permutation import check_equivariant as check_equivariant, permute as permute
from ._stage import check_stage as check_stage
from ._unbiased import Unbiased as Unbiased, check_unbiased as check_unbiased

"""The comparison itself: it sees every kind of difference, and says which."""

import pytest
import torch
from torch import nn

from domainformer.errors import ExportError
from domainformer.export.inputs import InputSpec
from domainformer.export.parity import compare_with_torch, default_shapes
from domainformer.export.subject import of_model

X = InputSpec("x", "float32", ("batch", "time"), "numbers")


class Two(nn.Module):
    """A large output and a small one."""

    def forward(self, x):
        return 1e6 * x, x[:, :1], x[:, 0], x > 0


@pytest.fixture
def subject():
    return of_model(Two(), inputs=[X])


def runner(change=lambda outputs: outputs):
    return lambda inputs: change(list(Two()(inputs["x"])))


def changed(place, how):
    def change(outputs):
        outputs[place] = how(outputs[place])
        return outputs

    return runner(change)


def test_the_same_is_the_same(subject):
    found = compare_with_torch(subject, runner())
    assert (found.difference, found.relative, found.agreement) == (0.0, 0.0, 1.0)
    assert [set(one) for one in found.shapes] == [{"batch", "time", "difference"}] * 5


def test_each_output_is_measured_by_its_own_scale(subject):
    large = compare_with_torch(subject, changed(0, lambda one: one + 1.0))
    assert large.difference == pytest.approx(1.0, abs=0.1)
    assert large.relative < 1e-4
    small = compare_with_torch(subject, changed(1, lambda one: -one))
    assert small.relative == pytest.approx(2.0)
    assert small.agreement < 1.0


@pytest.mark.parametrize(
    "how", [lambda one: one * torch.nan, lambda one: one / 0, lambda one: one.log()]
)
def test_what_is_no_number_is_infinitely_far(subject, how):
    assert compare_with_torch(subject, changed(1, how)).difference == float("inf")


def test_other_shapes_and_errors_are_told(subject):
    wrong = compare_with_torch(subject, changed(2, lambda one: one[None]))
    assert "shape [1, 1] in place of [1]" in wrong.failure

    def broken(inputs):
        raise RuntimeError

    assert compare_with_torch(subject, broken).failure.endswith("RuntimeError")
    assert not wrong.within(1e9)


def test_every_free_dimension_has_a_size(subject):
    assert all({"batch", "time"} <= set(sizes) for sizes in default_shapes(subject))
    with pytest.raises(ExportError, match="has no time"):
        compare_with_torch(subject, runner(), [{"batch": 2, "length": 3}])


def test_sizes_that_pytorch_cannot_run_are_told():
    class Short(nn.Module):
        def forward(self, x):
            if x.shape[1] > 4:
                raise ValueError("too long")
            return x

    with pytest.raises(ExportError, match=r"cannot be run in PyTorch[\s\S]*too long"):
        compare_with_torch(of_model(Short(), inputs=[X]), lambda inputs: [inputs["x"]],
                           [{"batch": 1, "time": 9}])  # fmt: skip

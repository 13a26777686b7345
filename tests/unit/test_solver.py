"""The sigma schedule and UniPC, compared with formulas and with equations whose solutions are known."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from framepack_core.solver import VARIANTS, flow_sigmas, sample_unipc, shift_mu, usable

# The schedule


@pytest.mark.parametrize(
    ("tokens", "mu"),
    [
        (256, 0.5),
        (4096, 1.15),
        (2176, 0.825),  # halfway
        (0, 0.5 - 0.65 / 15),
        (8798, math.log(7)),  # where the line reaches it
        (9 * 38 * 40, math.log(7)),  # 640x608, window 9
    ],
)
def test_mu_is_linear_in_the_generated_tokens_up_to_a_shift_of_7(tokens, mu):
    assert shift_mu(tokens) == pytest.approx(mu, abs=1e-4)


def test_mu_stays_under_the_cap_and_reaches_it():
    assert shift_mu(8797) < math.log(7)
    assert shift_mu(8799) == shift_mu(10**6) == math.log(7)


@given(st.floats(0.1, 30), st.integers(1, 50_000))
def test_a_given_shift_counts_whatever_the_size_and_is_not_capped(shift, tokens):
    assert shift_mu(tokens, shift) == pytest.approx(math.log(shift))


@given(st.integers(1, 60), st.integers(1, 20_000), st.sampled_from([0.0, 1.0, 3.0, 12.0]))
def test_sigmas_follow_the_formula(steps, tokens, shift):
    mu = math.log(shift) if shift else min(0.5 + 0.65 * (tokens - 256) / 3840, math.log(7))
    uniform = [1 - i / steps for i in range(steps)]
    expected = [math.exp(mu) / (math.exp(mu) + 1 / sigma - 1) for sigma in uniform]

    sigmas = flow_sigmas(steps, tokens, shift)

    assert sigmas.dtype == torch.float32
    assert sigmas[:-1].tolist() == pytest.approx(expected, rel=1e-5)
    assert sigmas[0] == pytest.approx(1, abs=1e-6)
    assert sigmas[-1] == 0
    assert len(sigmas) == steps + 1


@pytest.mark.parametrize("shift", [math.nan, math.inf, 1e-300, -1.0])
def test_a_shift_without_a_schedule_is_refused(shift):
    with pytest.raises(ValueError, match=rf"shift is {shift:g}; choose a value from 0.01 on, or 0"):
        flow_sigmas(8, 9999, shift)


def test_a_shift_of_1_spaces_sigmas_evenly():
    assert flow_sigmas(4, 9999, shift=1.0).tolist() == pytest.approx([1, 0.75, 0.5, 0.25, 0])


# UniPC


def even_in_lambda(first: float, last: float, steps: int) -> torch.Tensor:
    """Sigmas whose lambda = -log sigma is evenly spaced."""
    return torch.linspace(-math.log(first), -math.log(last), steps + 1, dtype=torch.float64).neg().exp()


def uneven(first: float, last: float, steps: int) -> torch.Tensor:
    """Sigmas with lambdas further and further apart."""
    spread = torch.linspace(0, 1, steps + 1, dtype=torch.float64) ** 1.5
    return (math.log(first) + (math.log(last) - math.log(first)) * spread).exp()


def polynomial(degree: int, lam: float) -> float:
    return sum(coefficient * lam**power for power, coefficient in enumerate((0.7, -1.3, 0.9, 0.4)[: degree + 1]))


def exact_step(degree: int, x: torch.Tensor, sigma_0: float, sigma_t: float) -> torch.Tensor:
    """sigma_t/sigma_0 x + sigma_t int e^lambda x0(lambda) dlambda for a polynomial x0, integrated by parts."""

    def antiderivative(lam):
        coefficients = [0.7, -1.3, 0.9, 0.4][: degree + 1]
        total, sign = 0.0, 1
        while coefficients:
            total += sign * sum(c * lam**p for p, c in enumerate(coefficients))
            coefficients = [p * c for p, c in enumerate(coefficients)][1:]
            sign = -sign
        return math.exp(lam) * total

    integral = antiderivative(-math.log(sigma_t)) - antiderivative(-math.log(sigma_0))
    return sigma_t / sigma_0 * x + sigma_t * integral


def run(degree: int, sigmas: torch.Tensor, variant: str):
    """Each x at which the model was called and each corrected x, for x0 predictions that are polynomials in lambda."""
    asked, corrected = [], []

    def model(x, sigma):
        asked.append(x)
        return torch.full_like(x, polynomial(degree, -math.log(sigma[0])))

    x = torch.tensor([[0.3, -1.1]], dtype=torch.float64)
    last = sample_unipc(model, x, sigmas, callback=lambda step: corrected.append(step["x"]), variant=variant)
    return asked, corrected, last


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    ("degree", "first"),
    [(0, 1), (1, 2), (2, 2), (3, 3)],
    ids=["constant", "linear", "quadratic", "cubic"],
)
def test_a_correction_is_exact_for_polynomials_up_to_the_order_it_has_reached(variant, degree, first):
    """Order 1 at the first step, 2 at the second, 3 from then on."""
    sigmas = uneven(0.95, 0.1, 6)

    _, corrected, _ = run(degree, sigmas, variant)

    steps = list(pairwise(zip(sigmas.tolist(), corrected, strict=False)))
    for (sigma_0, x), (sigma_t, result) in steps[first - 1 :]:
        torch.testing.assert_close(result, exact_step(degree, x, sigma_0, sigma_t), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("variant", VARIANTS)
def test_corrections_are_not_exact_one_degree_higher(variant):
    sigmas = uneven(0.95, 0.1, 6)

    for degree, step in ((1, 1), (3, 2)):
        _, corrected, _ = run(degree, sigmas, variant)
        exact = exact_step(degree, corrected[step - 1], sigmas[step - 1].item(), sigmas[step].item())
        assert (corrected[step] - exact).abs().max() > 1e-4


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_prediction_of_order_3_is_exact_for_quadratics(variant):
    sigmas = uneven(0.95, 0.1, 6)

    asked, corrected, _ = run(2, sigmas, variant)

    for step in range(3, 6):
        exact = exact_step(2, corrected[step - 1], sigmas[step - 1].item(), sigmas[step].item())
        torch.testing.assert_close(asked[step], exact, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_last_step_to_a_sigma_above_0_is_one_more_prediction(variant):
    sigmas = uneven(0.95, 0.1, 6)

    asked, corrected, last = run(2, sigmas, variant)

    assert len(asked) == len(corrected) == 6
    exact = exact_step(2, corrected[-1], sigmas[-2].item(), sigmas[-1].item())
    torch.testing.assert_close(last, exact, rtol=1e-10, atol=1e-12)


class Gaussian:
    """Data from N(0.4, 0.5^2): the x0 prediction and the solution of the flow are known."""

    mean, variance = 0.4, 0.25

    def __call__(self, x, sigma):
        sigma = sigma.reshape(-1, *[1] * (x.ndim - 1))
        gain = (1 - sigma) * self.variance / self.spread(sigma) ** 2
        return self.mean + gain * (x - (1 - sigma) * self.mean)

    def spread(self, sigma):
        return torch.sqrt((1 - sigma) ** 2 * self.variance + sigma**2)

    def solution(self, z, sigma):
        return (1 - sigma) * self.mean + self.spread(sigma) * z


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_error_falls_with_the_third_power_of_the_step(variant):
    data, z = Gaussian(), torch.tensor([[1.2, -0.7]], dtype=torch.float64)

    def error(steps):
        sigmas = even_in_lambda(0.95, 0.1, steps)
        result = sample_unipc(data, data.solution(z, sigmas[0]), sigmas, variant=variant)
        return (result - data.solution(z, sigmas[-1])).abs().max().item()

    errors = [error(steps) for steps in (20, 40, 80, 160)]

    orders = [math.log2(coarse / fine) for coarse, fine in pairwise(errors)]
    assert all(2.7 < order < 4.5 for order in orders), orders
    assert errors[-1] < 1e-6


def test_sampling_to_0_ends_at_the_data():
    data, z = Gaussian(), torch.tensor([[1.2, -0.7]], dtype=torch.float64)

    result = sample_unipc(data, z, flow_sigmas(160, 4096).double())

    torch.testing.assert_close(result, data.solution(z, torch.zeros(())), rtol=0, atol=5e-3)


@pytest.mark.parametrize(("variant", "B"), [("bh1", lambda h: h), ("bh2", lambda h: 1 - math.exp(-h))])
def test_the_variants_weigh_the_first_correction_by_their_b_of_h(variant, B):
    sigmas = torch.tensor([0.95, 0.5, 0.2], dtype=torch.float64)
    h = math.log(0.95 / 0.5)

    asked, corrected, _ = run(1, sigmas, variant)

    difference = polynomial(1, -math.log(0.5)) - polynomial(1, -math.log(0.95))
    torch.testing.assert_close(corrected[1], asked[1] + B(h) * difference / 2, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("variant", "B"), [("bh1", lambda h: h), ("bh2", lambda h: 1 - math.exp(-h))])
def test_a_prediction_of_order_2_adds_half_the_last_change_at_the_new_step(variant, B):
    """The paper's closed form, not the system that is solved for higher orders."""
    sigmas = uneven(0.95, 0.1, 6)
    sigma_0, sigma_t = sigmas[1].item(), sigmas[2].item()
    h, slope = math.log(sigma_0 / sigma_t), -1.3

    asked, corrected, _ = run(1, sigmas, variant)

    first_order = sigma_t / sigma_0 * corrected[1] + (1 - math.exp(-h)) * polynomial(1, -math.log(sigma_0))
    torch.testing.assert_close(asked[2], first_order + B(h) * slope * h / 2, rtol=1e-12, atol=1e-12)


def test_bh1_is_the_one_by_default():
    x, sigmas = torch.tensor([[1.2, -0.7]]), flow_sigmas(6, 4096)

    default, bh1, bh2 = (
        sample_unipc(Gaussian(), x, sigmas, **kwargs) for kwargs in ({}, {"variant": "bh1"}, {"variant": "bh2"})
    )

    assert torch.equal(default, bh1)
    assert not torch.equal(default, bh2)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 9])
def test_ending_at_0_returns_the_last_prediction_of_as_many_evaluations_as_steps(steps):
    predictions = []

    def model(x, sigma):
        predictions.append(Gaussian()(x, sigma))
        return predictions[-1]

    result = sample_unipc(model, torch.randn(2, 3, generator=torch.Generator().manual_seed(0)), flow_sigmas(steps, 4096))

    assert len(predictions) == steps
    assert result is predictions[-1]


def test_every_step_reports_itself():
    x, sigmas, steps = torch.tensor([[1.2, -0.7]]), flow_sigmas(5, 4096), []
    asked = []

    def model(x, sigma):
        asked.append(x)
        return Gaussian()(x, sigma)

    result = sample_unipc(model, x, sigmas, callback=steps.append)

    assert [step["i"] for step in steps] == [0, 1, 2, 3, 4]
    assert [step["sigma"] for step in steps] == [step["sigma_hat"] for step in steps] == sigmas[:-1].tolist()
    assert steps[0]["x"] is x
    assert steps[-1]["denoised"] is result
    for step, prediction, sigma in zip(steps, asked, sigmas[:-1], strict=True):
        assert torch.equal(step["denoised"], Gaussian()(prediction, sigma * torch.ones(1)))
    assert all(not torch.equal(step["x"], x) for step, x in zip(steps[1:], asked[1:], strict=True))  # corrected


def test_the_model_gets_one_sigma_a_batch_item_and_the_extra_arguments():
    calls = []

    def model(x, sigma, **extra):
        calls.append((tuple(sigma.shape), sigma.tolist(), extra))
        return x

    sample_unipc(model, torch.zeros(3, 2), flow_sigmas(2, 256, shift=1.0), extra_args={"seed": 4}, disable=True)

    assert calls == [((3,), [1.0] * 3, {"seed": 4}), ((3,), [0.5] * 3, {"seed": 4})]


def test_the_noise_it_is_given_is_left_alone():
    x = torch.tensor([[1.2, -0.7]])

    sample_unipc(Gaussian(), x, flow_sigmas(5, 4096))

    assert torch.equal(x, torch.tensor([[1.2, -0.7]]))


def test_fewer_than_two_sigmas_leave_x_alone():
    x = torch.ones(1, 2)

    for sigmas in (torch.tensor([]), torch.tensor([0.0]), torch.tensor([0.5])):
        assert sample_unipc(None, x, sigmas) is x


def test_a_step_between_equal_sigmas_is_left_out():
    x = torch.linspace(-1, 1, 6)[None]

    def model(x, sigma):
        return torch.tanh(3 * x + sigma[:, None])

    twice = sample_unipc(model, x, torch.tensor([1.0, 0.7, 0.7, 0.3, 0.0]))

    assert torch.equal(twice, sample_unipc(model, x, torch.tensor([1.0, 0.7, 0.3, 0.0])))


# Schedules of other programs

CENTRES = torch.randn(6, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def mixture(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """The exact x0 prediction for data that is noise of 0.3 around six points."""
    s, a = sigma[0].double(), 1 - sigma[0].double()
    variance = (0.3 * a) ** 2 + s**2
    offsets = x[:, None] - a * CENTRES
    weights = torch.softmax(-offsets.square().sum(-1) / (2 * variance), dim=1)
    return ((CENTRES + a * 0.09 / variance * offsets) * weights[..., None]).sum(1)


def euler(x: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
    for sigma, after in pairwise(sigmas):
        x0 = mixture(x, sigma.expand(len(x)))
        x = x0 + (x - x0) * after / sigma
    return x


def decibels(x: torch.Tensor, exact: torch.Tensor) -> float:
    return 20 * math.log10(exact.norm() / (x - exact).norm())


@pytest.mark.parametrize("steps", [8, 12, 25])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_schedule_that_ends_with_a_long_step_is_no_worse_than_with_euler(steps, variant):
    """As ComfyUI's `normal` and `ddim_uniform` do: in equal steps to 0.001, and then to 0."""
    noise = torch.randn(16, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    exact = euler(noise, torch.linspace(1, 0, 2001, dtype=torch.float64))
    sigmas = torch.cat([torch.linspace(1, 0.001, steps, dtype=torch.float64), torch.zeros(1)])

    found = sample_unipc(mixture, noise, sigmas, variant=variant)

    assert decibels(found, exact) > decibels(euler(noise, sigmas), exact)


@pytest.mark.parametrize(
    "sigmas",
    [
        [1.0, 0.9, 0.5, 0.2, 0.0],
        [1.0, 0.9, 0.65, 0.3, 0.0],
        [1.0, 0.999, 0.998, 0.5, 0.2, 0.0],
        [1.0, 0.9, 0.9 - 1e-7, 0.5, 0.2, 0.0],
        [1.0, 0.9, 0.8, 0.5, 0.2, 0.02],
        [1.0, 0.9, 0.8, 0.5, 0.2, 0.001],
    ],
    ids=["short first", "growing", "shorter first", "nearly equal", "ends at 0.02", "ends at 0.001"],
)
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_schedule_by_hand_with_a_step_that_is_much_longer_is_not_much_worse_than_with_euler(sigmas, variant):
    noise = torch.randn(16, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    exact = euler(noise, torch.linspace(1, 0, 2001, dtype=torch.float64))
    schedule = torch.tensor(sigmas, dtype=torch.float64)

    found = sample_unipc(mixture, noise, schedule, variant=variant)

    assert decibels(found, exact) > decibels(euler(noise, schedule), exact) - 6


@pytest.mark.parametrize("shift", [0.0, 0.1, 1.0, 7.0, 100.0])
@pytest.mark.parametrize("steps", [2, 3, 4, 5, 8, 25, 100])
@pytest.mark.parametrize("tokens", [256, 13_680])
def test_the_official_schedule_uses_every_prediction(shift, steps, tokens):
    sigmas = torch.unique_consecutive(flow_sigmas(steps, tokens, shift))[:-1].double()
    lambdas = [-math.log(sigma) for sigma in sigmas]

    for number in range(1, len(lambdas)):
        history = [(value, torch.zeros(1)) for value in lambdas[max(0, number - 3) : number][::-1]]
        assert usable(history, lambdas[number]) == history

import math

import cv2
import numpy as np
import pytest
import torch
from scipy.stats import chisquare, kstest, poisson

from sr_iqa.archs.basicsr_bridge import import_basicsr
from sr_iqa.config.degradation import DegradationOptions
from sr_iqa.data.degradations import Degradation, Stage, apply, degrade_image, draw, margin, window
from sr_iqa.data.kernels import Blur, blur_kernel
from sr_iqa.data.noise import Noise, add_noise, poisson_counts, poisson_noise
from sr_iqa.data.resize import imresize, resize
from sr_iqa.images import jpeg_roundtrip

from .helpers import picture


@pytest.fixture(scope="module")
def basicsr():
    import_basicsr()
    import basicsr.data.degradations
    import basicsr.utils.img_process_util
    import basicsr.utils.matlab_functions

    return basicsr


def preset(name, **more):
    return DegradationOptions.model_validate({"preset": name, **more})


# ---------------------------------------------------------------- resize


@pytest.mark.parametrize(
    "shape, scale", [((64, 48), 1 / 4), ((40, 52), 1 / 2), ((60, 33), 1 / 3), ((16, 24), 1 / 8), ((12, 20), 2), ((9, 14), 4)]
)
def test_imresize_equals_basicsrs_matlab_resize(basicsr, shape, scale):
    image = np.random.default_rng(0).random((*shape, 3), np.float32)
    expected = basicsr.utils.matlab_functions.imresize(image, scale)
    size = tuple(round(side * scale) for side in shape)
    assert expected.shape[:2] == size
    assert np.abs(imresize(image, size) - expected).max() <= 1e-5


def test_imresize_keeps_constants_and_linear_ramps():
    assert np.allclose(imresize(np.full((32, 32, 3), 7.0), (9, 13)), 7, atol=1e-5)
    ramp = np.repeat(np.arange(64, dtype=np.float32)[:, None, None], 3, 2) + np.zeros((1, 8, 1), np.float32)
    assert np.allclose(imresize(ramp, (16, 8))[4:-4, 0, 0], np.arange(16)[4:-4] * 4 + 1.5, atol=1e-4)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "area"])
def test_modes_are_torchs(mode):
    """The peers resize by torch's interpolate."""
    image = np.random.default_rng(0).random((48, 64, 3), np.float32)
    for size in [(12, 16), (41, 57), (53, 80), (47, 65), (7, 130)]:
        expected = torch.nn.functional.interpolate(torch.from_numpy(image).permute(2, 0, 1)[None], size=size, mode=mode)
        assert np.abs(resize(image, size, mode) - expected[0].permute(1, 2, 0).numpy()).max() < 2e-5


# ---------------------------------------------------------------- kernels and blur


@pytest.mark.parametrize("isotropic", [True, False])
@pytest.mark.parametrize("kind, function", [("", "Gaussian"), ("generalized_", "generalized_Gaussian"), ("plateau_", "plateau")])
def test_kernels_equal_basicsrs(basicsr, kind, function, isotropic):
    rng = np.random.default_rng(1)
    for size in (3, 9, 21):
        sigma_x, sigma_y, angle, beta = rng.uniform((0.2, 0.2, -math.pi, 0.5), (3, 3, math.pi, 4))
        shape = () if kind == "" else (beta,)
        expected = getattr(basicsr.data.degradations, f"bivariate_{function}")(size, sigma_x, sigma_y, angle, *shape, isotropic=isotropic)
        ours = blur_kernel(Blur(kind + ("iso" if isotropic else "aniso"), size, sigma_x, sigma_y, angle, beta))
        assert np.abs(ours - expected).max() < 1e-12


@pytest.mark.parametrize("size, cutoff", [(3, 3.0), (7, 1.1), (21, 0.7)])
def test_sinc_kernels_equal_basicsrs(basicsr, size, cutoff):
    expected = basicsr.data.degradations.circular_lowpass_kernel(cutoff, size)
    assert np.abs(blur_kernel(Blur("sinc", size, cutoff=cutoff)) - expected).max() < 1e-12


@pytest.mark.parametrize("size", [3, 9, 21])
def test_blur_equals_basicsrs(basicsr, size):
    image = picture(48).astype(np.float32)
    blur = Blur("aniso", size, 2.0, 0.7, 0.6)
    tensor = torch.from_numpy(image / 255).permute(2, 0, 1)[None]
    expected = basicsr.utils.img_process_util.filter2D(tensor, torch.from_numpy(blur_kernel(blur)).float()[None])
    plain = Degradation(Stage(blur, 1.0, "bicubic", None, None), None, "bicubic", None, False)
    ours = apply(picture(48), plain, 1)
    assert np.abs(ours - expected[0].permute(1, 2, 0).numpy() * 255).max() <= 0.5 + 1e-3


# ---------------------------------------------------------------- noise


@pytest.mark.parametrize("photons", [2, 64, 256])
def test_poisson_counts_follow_the_exact_distribution(photons):
    rng = np.random.default_rng(2)
    for level in (1, 3, 60, 128, 255):
        counts = poisson_counts(np.full(40000, level, np.uint8), photons, rng)
        mean = level / 255 * photons
        low, high = poisson.ppf([1e-3, 1 - 1e-3], mean).astype(int)
        inner = np.arange(low, high + 1)
        expected = np.array([poisson.cdf(low - 1, mean), *poisson.pmf(inner, mean), poisson.sf(high, mean)]) * 40000
        observed = np.array([(counts < low).sum(), *((counts == k).sum() for k in inner), (counts > high).sum()])
        kept = expected > 5
        observed, expected = [*observed[kept], observed[~kept].sum()], [*expected[kept], max(expected[~kept].sum(), 1e-9)]
        assert chisquare(observed, np.array(expected) * sum(observed) / sum(expected)).pvalue > 1e-4, (photons, level)
    assert not poisson_counts(np.zeros(1000, np.uint8), photons, rng).any()


def test_poisson_tails_are_not_cut():
    counts = poisson_counts(np.full(3_000_000, 255, np.uint8), 256, np.random.default_rng(3))
    assert counts.max() > poisson.ppf(1 - 1e-6, 256) - 8 and counts.min() < poisson.ppf(1e-6, 256) + 8
    assert abs(counts.mean() - 256) < 0.05 and abs(counts.var() / 256 - 1) < 0.01


def test_poisson_noise_has_basicsrs_moments(basicsr):
    image = picture(96).astype(np.float32)
    noise = np.stack([poisson_noise(image, np.random.default_rng(seed)) for seed in range(60)])
    np.random.seed(0)
    expected = np.stack([basicsr.data.degradations.generate_poisson_noise(image / 255) * 255 for _ in range(60)])
    bright = image > 128
    for part in (bright, ~bright):
        assert abs(noise[:, part].std() / expected[:, part].std() - 1) < 0.01 and abs(noise[:, part].mean()) < 0.1


def test_gaussian_noise_has_the_asked_deviation():
    gray = np.full((128, 128, 3), 128, np.float32)
    noise = add_noise(gray, Noise("gaussian", 9.0, False, 5)) - 128
    assert abs(noise.std() - 9) < 0.15 and abs(noise.mean()) < 0.15
    assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.03


@pytest.mark.parametrize("kind", ["gaussian", "poisson"])
def test_gray_noise_is_equal_in_all_channels(kind):
    image = picture(32).astype(np.float32) * 0.3 + 90
    difference = add_noise(image, Noise(kind, 1.0, True, 1)) - image
    assert np.abs(difference).max() > 1 and np.allclose(difference, difference[..., :1], atol=1e-3)
    color = add_noise(image, Noise(kind, 1.0, False, 1)) - image
    assert not np.allclose(color, color[..., :1], atol=1e-3)


def test_noise_is_clipped():
    assert add_noise(np.full((16, 16, 3), 250, np.float32), Noise("gaussian", 30.0, False, 0)).max() == 255


# ---------------------------------------------------------------- drawn parameters


def draws(name, count=3000):
    options, rng = preset(name), np.random.default_rng(4)
    return options, [draw(options, rng) for _ in range(count)]


def is_share(values, share):
    """Whether the share of true values is within four standard errors of what it should be."""
    return abs(np.mean(values) - share) < 4 * math.sqrt(share * (1 - share) / len(values)) + 1e-9


def is_uniform(values, low, high):
    return kstest(values, "uniform", args=(low, high - low)).pvalue > 1e-3


@pytest.mark.parametrize("name, part", [("hggt", "first"), ("realesrgan", "first"), ("realesrgan", "second")])
def test_drawn_parameters_have_the_stated_distribution(name, part):
    options, drawn = draws(name)
    wanted, stages = getattr(options, part), [getattr(d, part) for d in drawn]
    assert is_share([s.blur is not None for s in stages], wanted.blur.prob)
    blurs = [s.blur for s in stages if s.blur]
    sizes = np.arange(wanted.blur.kernel_size_range[0], wanted.blur.kernel_size_range[1] + 1, 2)
    assert chisquare([sum(b.size == size for b in blurs) for size in sizes]).pvalue > 1e-3
    assert is_share([b.kind == "sinc" for b in blurs], wanted.blur.sinc_prob)
    shaped = [b for b in blurs if b.kind != "sinc"]
    for kind, share in wanted.blur.kernels.items():
        assert is_share([b.kind == kind for b in shaped], share)
    assert is_uniform([b.sigma_x for b in shaped], *wanted.blur.sigma_range)
    aniso = [b for b in shaped if b.kind.endswith("aniso")]
    assert is_uniform([b.angle for b in aniso], -math.pi, math.pi) and is_uniform([b.sigma_y for b in aniso], *wanted.blur.sigma_range)
    low, high = wanted.resize.scale_range
    for share, group in zip(
        wanted.resize.prob, ([s.factor > 1 for s in stages], [s.factor < 1 for s in stages], [s.factor == 1 for s in stages]), strict=True
    ):
        assert is_share(group, share)
    assert is_uniform([s.factor for s in stages if s.factor < 1], low, 1) and is_uniform(
        [s.factor for s in stages if s.factor > 1], 1, high
    )
    assert chisquare([sum(s.mode == mode for s in stages) for mode in wanted.resize.modes]).pvalue > 1e-3
    assert is_share([s.noise.kind == "gaussian" for s in stages], wanted.noise.gaussian_prob)
    assert is_uniform([s.noise.amount for s in stages if s.noise.kind == "gaussian"], *wanted.noise.sigma_range)
    assert is_uniform([s.noise.amount for s in stages if s.noise.kind == "poisson"], *wanted.noise.poisson_scale_range)
    assert is_share([s.noise.gray for s in stages], wanted.noise.gray_prob)
    assert len({s.noise.seed for s in stages}) == len(stages)
    qualities = np.arange(wanted.jpeg_range[0], wanted.jpeg_range[1] + 1)
    assert chisquare([sum(s.jpeg == q for s in stages) for q in qualities]).pvalue > 1e-3


def test_shapes_of_kernels_lie_on_both_sides_of_one():
    _, drawn = draws("realesrgan")
    generalized = [d.first.blur.beta for d in drawn if d.first.blur.kind.startswith("generalized")]
    plateau = [d.first.blur.beta for d in drawn if d.first.blur.kind.startswith("plateau")]
    assert is_share([beta < 1 for beta in generalized], 0.5)
    assert is_uniform([b for b in generalized if b < 1], 0.5, 1) and is_uniform([b for b in generalized if b > 1], 1, 4)
    assert min(plateau) == 1 and is_uniform([b for b in plateau if b > 1], 1, 2)


def test_final_parts_have_the_stated_distribution():
    _, drawn = draws("realesrgan")
    assert is_share([d.jpeg_last for d in drawn], 0.5) and is_share([d.final_sinc is not None for d in drawn], 0.8)
    sincs = [d.final_sinc for d in drawn if d.final_sinc]
    assert chisquare([sum(s.size == size for s in sincs) for size in range(7, 22, 2)]).pvalue > 1e-3
    assert is_uniform([s.cutoff for s in sincs], math.pi / 3, math.pi)
    assert chisquare([sum(d.final_mode == mode for d in drawn) for mode in ("area", "bilinear", "bicubic")]).pvalue > 1e-3
    _, hggt = draws("hggt", 200)
    assert all(d.second is None and not d.jpeg_last and d.final_sinc is None and d.final_mode == d.first.mode for d in hggt)


# ---------------------------------------------------------------- the chain


def test_bicubic_is_matlabs_resize_rounded():
    image = picture(64)
    plain = draw(preset("bicubic"), np.random.default_rng(0))
    assert plain == Degradation(None, None, "antialiased", None, False)
    assert np.array_equal(apply(image, plain, 4), np.clip(np.rint(imresize(image.astype(np.float32), (16, 16))), 0, 255).astype(np.uint8))


def noiseless(name, seed, **stage):
    """Drawn parameters without noise and with the resize factors kept at 1, where a crop must give the whole image's LQ exactly."""
    drawn = draw(preset(name), np.random.default_rng(seed))

    def quiet(s):
        return s and Stage(s.blur, 1.0, s.mode, None, s.jpeg)

    return Degradation(quiet(drawn.first), quiet(drawn.second), drawn.final_mode, drawn.final_sinc, drawn.jpeg_last)


@pytest.mark.parametrize("name", ["bicubic", "hggt", "realesrgan"])
def test_a_crop_with_margin_gives_the_whole_images_lq(name):
    image = picture(512, 3)
    for seed in range(8):
        degradation = noiseless(name, seed)
        whole = apply(image, degradation, 4)
        y, x = np.random.default_rng(seed).integers(0, (512 - 64) // 4, 2) * 4
        box = window(degradation, (y, x, 64, 64), (512, 512), 4)
        part = apply(image[box[0] : box[0] + box[2], box[1] : box[1] + box[3]], degradation, 4)
        core = part[(y - box[0]) // 4 :, (x - box[1]) // 4 :][:16, :16].astype(int)
        difference = np.abs(core - whole[y // 4 : y // 4 + 16, x // 4 : x // 4 + 16])
        assert difference.max() <= 1 and (difference > 0).mean() < 0.01  # large kernels go through a Fourier transform: rounding


def test_windows_stay_small_and_inside():
    for name, widest in (("bicubic", 24), ("hggt", 120)):
        for drawn in draws(name, 200)[1]:
            y, x, h, w = window(drawn, (256, 128, 64, 64), (510, 400), 4)
            assert y >= 0 and y + h <= 508 and x >= 0 and x + w <= 400 and not (y % 4 or x % 4 or h % 4 or w % 4)
            assert y <= 256 - margin(drawn, 4) and y + h >= 320 + margin(drawn, 4) and h <= 64 + widest
    y, x, h, w = window(draws("realesrgan", 1)[1][0], (0, 36, 64, 64), (100, 102), 4)
    assert (y, x, h, w) == (0, 0, 100, 100)


def test_resized_crops_stay_aligned():
    """Whatever the stages' factors, the LQ shows the same place as the bicubic LQ does: shifting it by a pixel makes it worse."""
    image = cv2.GaussianBlur(picture(256, 5), (0, 0), 3)
    options = preset("realesrgan", first={"noise": None, "jpeg_range": None}, second={"noise": None, "jpeg_range": None})
    reference = apply(image, draw(preset("bicubic"), np.random.default_rng(0)), 4).astype(float)
    for seed in range(10):
        lq = apply(image, draw(options, np.random.default_rng(seed)), 4).astype(float)
        inner = reference[8:-8, 8:-8]
        error = {(dy, dx): np.abs(lq[8 + dy : 56 + dy, 8 + dx : 56 + dx] - inner).mean() for dy in (-1, 0, 1) for dx in (-1, 0, 1)}
        assert min(error, key=error.get) == (0, 0)


def test_jpeg_comes_before_or_after_the_final_resize():
    image = picture(128)
    before = noiseless("hggt", 1)
    stage = before.first
    after = Degradation(stage, None, before.final_mode, None, True)
    without = Degradation(Stage(stage.blur, 1.0, stage.mode, None, None), None, before.final_mode, None, False)
    assert np.array_equal(apply(image, after, 4), jpeg_roundtrip(apply(image, without, 4), stage.jpeg))
    assert not np.array_equal(apply(image, before, 4), apply(image, after, 4))


def test_same_parameters_same_lq_whatever_the_threads():
    image = picture(160)
    threads = cv2.getNumThreads()
    drawn = [draw(preset(name), np.random.default_rng(seed)) for name in ("bicubic", "hggt", "realesrgan") for seed in range(4)]
    try:
        cv2.setNumThreads(1)
        alone = [apply(image, d, 4) for d in drawn]
        cv2.setNumThreads(4)
        assert all(np.array_equal(a, apply(image, d, 4)) for a, d in zip(alone, drawn, strict=True))
    finally:
        cv2.setNumThreads(threads)


@pytest.mark.parametrize("name", ["bicubic", "hggt", "realesrgan"])
@pytest.mark.parametrize("scale", [1, 2, 4])
def test_whole_images_of_any_size(name, scale):
    image = picture(67)[:50]
    lq = degrade_image(image, preset(name), scale, np.random.default_rng(0))
    assert lq.shape == (50 // scale, 67 // scale, 3) and lq.dtype == np.uint8
    assert np.array_equal(lq, degrade_image(image, preset(name), scale, np.random.default_rng(0)))

"""nano on photos that its training never saw: scikit-image's and scikit-learn's."""

from functools import cache
from importlib.resources import files

import numpy as np
import pytest
import torch

from sr_iqa.iqa.nano import Nano, grid_share, load_nano
from sr_iqa.iqa.nano_attacks import Upscaler
from sr_iqa.iqa.nano_evaluation import BETTER, BETTER_SOFT, WORSE, fine_tune, gains, judge, textured_crops
from sr_iqa.iqa.nano_families import blur, enlarged, label, native_family, quantise, reference_family, tensor, unsharp
from sr_iqa.iqa.nano_training import Recipe, train
from tests.helpers import picture, save

LEAST_SHARE = {"blur": 0.95, "noise": 0.95, "downscaling": 0.95, "JPEG": 0.90, "ringing": 0.90, "halos": 0.80}
LEAST_ENHANCED = {False: 0.55, True: 0.75}
"""Untouched photos, enlarged photos: whatever is crisp or grainy already gains nothing from more sharpening."""
SOFT = (0, 1, 2, 5)
"""The photos that leave something to sharpen; the rocket is grainy, the pagoda is crisp to the point of aliasing."""


@cache
def photos():
    """float32 (h, w, 3) in [0, 1]"""
    import skimage.data
    from sklearn.datasets import load_sample_images

    images = [skimage.data.astronaut(), skimage.data.coffee(), skimage.data.chelsea(), skimage.data.rocket(), *load_sample_images().images]
    return [np.asarray(image, np.float32) / 255 for image in images]


@cache
def nano():
    return load_nano()


def crops(images):
    return tensor(np.stack([quantise(image[at]) for image in images for at in textured_crops(image)]))


@pytest.mark.parametrize("kind", WORSE)
def test_degraded_photos_score_below_clean_ones(kind):
    """All strengths of a kind together; the model card has them one by one."""
    found = gains(nano(), photos(), WORSE[kind])
    share = float((torch.cat(list(found.values())) < 0).float().mean())
    assert share >= LEAST_SHARE[kind], {name: f"{(gain < 0).float().mean():.3f}, {gain.mean():+.1f}" for name, gain in found.items()}


@pytest.mark.parametrize(("enlarge", "operations"), [(False, BETTER), (True, BETTER_SOFT)])
def test_well_chosen_enhancements_score_above_ordinary_photos(enlarge, operations):
    found = gains(nano(), [enlarged(photos()[i]) for i in SOFT] if enlarge else photos(), operations)
    share = float((torch.cat(list(found.values())) > 0).float().mean())
    assert share >= LEAST_ENHANCED[enlarge], {name: f"{(gain > 0).float().mean():.3f}, {gain.mean():+.1f}" for name, gain in found.items()}


def test_scores_are_bounded_and_do_not_depend_on_the_batch():
    extremes = torch.stack([torch.zeros(3, 64, 64), torch.ones(3, 64, 64), torch.rand(3, 64, 64), crops(photos()[:1])[0, :, :64, :64]])
    together = nano()(extremes)
    assert ((together >= 0) & (together <= 100)).all()
    alone = torch.cat([nano()(image[None]) for image in extremes])
    assert torch.allclose(together, alone, atol=1e-3)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (16, 61), (97, 33)])
def test_any_size_from_16_px(height, width):
    score = nano()(torch.rand(2, 3, height, width))
    assert score.shape == (2,) and score.isfinite().all()
    assert [f.shape[-1] for f in nano().features(torch.rand(1, 3, 64, 64))] == [32, 16, 16, 16, 8, 8]


def test_smaller_images_are_refused():
    with pytest.raises(ValueError, match="at least 16"):
        nano()(torch.rand(1, 3, 15, 40))


def test_gradient_is_finite_even_for_a_flat_image_and_reaches_no_weight():
    images = torch.stack([torch.full((3, 48, 48), 0.5), crops(photos()[:1])[0, :, :48, :48]]).requires_grad_()
    nano()(images).sum().backward()
    assert images.grad.isfinite().all() and images.grad[1].abs().sum() > 0
    assert not any(p.requires_grad for p in nano().parameters()) and not nano().training


def test_it_is_small():
    assert (files("sr_iqa") / "assets" / "nano.safetensors").stat().st_size <= 2 * 2**20
    assert sum(p.numel() for p in nano().parameters()) <= 250_000


def test_a_grid_is_seen_and_lowers_the_score():
    clean = crops(photos()[:2])
    tile = 0.05 * torch.randn(1, 3, 4, 4).repeat(1, 1, 32, 32)
    painted = (clean + tile).clamp(0, 1)
    assert grid_share(clean).median() < 0.05 < 0.3 < grid_share(painted).median()
    assert (nano()(painted) < nano()(clean)).all()


def test_the_label_prefers_the_right_amount_of_sharpening():
    best = crops(photos()[:1])
    soft = [np.ascontiguousarray(image) for image in best.movedim(1, -1).numpy()]
    versions = [blur(image, 1.0) for image in soft], [unsharp(blur(image, 1.0), 1, 1.5) for image in soft]
    blurred, mended = (label(tensor(quantise(np.stack(v))), best) for v in versions)
    overdone = label(tensor(quantise(np.stack([unsharp(image, 2, 4) for image in soft]))), best)
    assert torch.allclose(label(best, best), torch.ones(len(best)))
    assert (mended > blurred).all() and (overdone < 0.9).all()


def test_families_depend_on_the_generator_only():
    photo = photos()[4][:320, :480]
    for family, members in ((reference_family, 20), (native_family, 9)):
        first, again = (family(photo, 64, np.random.default_rng(5)) for _ in range(2))
        assert first.shape == (members, 64, 64, 3) and np.array_equal(first, again)


def test_a_rewarded_network_does_not_cheat():
    """80 steps at the demo's learning rate and weight, all parameters free: what happens to held-out photos."""
    torch.manual_seed(0)
    images = [enlarged(photo) for photo in photos()]
    train, heldout = crops(images[2:4])[:, :, :64, :64], crops(images[4:5])[::2]
    base = fine_tune(Upscaler(), nano(), train, train, steps=200, lr=2e-3, weight=0)
    plain, rewarded = (judge(fine_tune(base, nano(), train, train, weight=w), nano(), heldout) for w in (0, 0.02))
    assert rewarded.grid < 0.1
    assert rewarded.psnr > plain.psnr - 2.5


def test_training_is_one_run_that_can_be_repeated(tmp_path):
    """Six steps of the real recipe, attacks, campaigns and ladder included, on two small photos: twice the same weights, and they moved."""
    for i in range(2):
        save(tmp_path / f"{i}.png", picture(320, seed=i))
    few = {"families_per_photo": 2, "native_families_per_photo": 2, "upscaler_steps": 3, "campaign_steps": 3}
    recipe = Recipe(steps=6, attack_from_step=2, campaign_every_steps=4, replay_batch=4, **few)
    one, two = (train(tmp_path, recipe).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    torch.manual_seed(recipe.seed)
    assert any(not torch.equal(value, Nano().state_dict()[name]) for name, value in one.items())
    assert all(value.isfinite().all() for value in one.values())

"""From a folder to splits, data sets, transforms and dataloaders."""

import os
import pickle
import random
import shutil
import sys
from collections import Counter
from itertools import chain
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.model_selection import StratifiedShuffleSplit
from test_folders import names, noise, three, write_classes, write_ppm
from torch.utils.data import default_collate
from torchvision.models import get_model_weights, list_models
from torchvision.transforms._presets import ImageClassification

from going_modular import data_setup
from going_modular.pictures import dataset as dataset_module

PHOTO = Path(matplotlib.get_data_path(), "sample_data", "grace_hopper.jpg")


# --- Splits -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("given", "carved"), [("val", "test"), ("test", "val")])
def test_the_missing_split_is_carved_out_of_train(tmp_path, no_warnings, given, carved):
    write_classes(tmp_path / "train", ants=40, bees=20)
    write_classes(tmp_path / given, 1000, ants=4, bees=4)
    splits = data_setup.load(tmp_path)
    assert len(getattr(splits, given)) == 8
    assert Counter(getattr(splits, carved).targets) == {0: 8, 1: 4}
    both = names(splits.train, tmp_path) + names(getattr(splits, carved), tmp_path)
    assert sorted(both) == names(
        data_setup.load_split(tmp_path / "train", splits.class_names), tmp_path
    )
    assert splits.how.startswith(f"train, {given} as given; {carved} is 20% of each class")


def test_class_folders_are_split_in_three_without_loss_or_overlap(tmp_path, no_warnings):
    write_classes(tmp_path, ants=30, bees=17, wasps=3)
    splits = data_setup.load(tmp_path)
    everything = [name for split in three(splits) for name in names(split, tmp_path)]
    assert len(everything) == len(set(everything)) == 50
    assert [Counter(split.targets) for split in three(splits)] == [
        {0: 18, 1: 11, 2: 1},
        {0: 6, 1: 3, 2: 1},
        {0: 6, 1: 3, 2: 1},
    ]


def test_classes_keep_their_proportions_like_scikit_learn_has_them(tmp_path):
    counts = {f"class_{i}": 5 + 7 * i for i in range(8)}
    write_classes(tmp_path, **counts)
    splits = data_setup.load(tmp_path, val_fraction=0.15, test_fraction=0.25)
    labels = np.repeat(np.arange(8), list(counts.values()))
    for split, fraction in ((splits.val, 0.15), (splits.test, 0.25)):
        oracle = StratifiedShuffleSplit(1, test_size=fraction, random_state=0)
        ((_, held_out),) = oracle.split(labels, labels)
        ours, theirs = Counter(split.targets), Counter(labels[held_out].tolist())
        assert all(abs(ours[label] - theirs[label]) <= 1 for label in range(8))


def test_a_split_is_the_same_on_every_machine_and_in_every_version(tmp_path):
    splits = data_setup.load(write_classes(tmp_path, ants=8, bees=8), seed=7)
    assert names(splits.val, tmp_path) == [
        "ants/003.ppm",
        "ants/007.ppm",
        "bees/002.ppm",
        "bees/003.ppm",
    ]
    assert names(splits.test, tmp_path) == [
        "ants/000.ppm",
        "ants/006.ppm",
        "bees/000.ppm",
        "bees/004.ppm",
    ]


def test_a_split_depends_on_content_and_seed_only(tmp_path, monkeypatch):
    here, there = tmp_path / "here", tmp_path / "elsewhere" / "renamed"
    write_classes(here, ants=20, bees=20)
    shutil.copytree(here, there)
    first = [names(split, here) for split in three(data_setup.load(here))]
    in_order = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda self: reversed(sorted(in_order(self))))
    assert [names(split, there) for split in three(data_setup.load(there))] == first
    assert [names(split, here) for split in three(data_setup.load(here, seed=43))] != first


def test_new_pictures_hardly_move_the_old_ones(tmp_path):
    write_classes(tmp_path, ants=50, bees=50)
    before = data_setup.load(tmp_path)
    for i in range(3):
        write_ppm(tmp_path / "ants" / f"a new one {i}.ppm", 10_000 + i)
    after = data_setup.load(tmp_path)
    assert [path for path, label in after.val.samples if label == 1] == [
        path for path, label in before.val.samples if label == 1
    ]
    left = set(names(before.val, tmp_path)) - set(names(after.val, tmp_path))
    assert len(left) <= 3


def test_copies_of_a_picture_stay_in_one_split(tmp_path, no_warnings):
    write_classes(tmp_path, ants=12, bees=12)
    for i in range(12):
        for copy in range(i % 4):
            shutil.copy(tmp_path / f"ants/{i:03}.ppm", tmp_path / f"ants/{copy}_of_{i:03}.ppm")
    for seed in range(10):
        splits = data_setup.load(tmp_path, seed=seed)
        contents = [{path.read_bytes() for path, _ in split.samples} for split in three(splits)]
        assert sum(map(len, contents)) == len(set.union(*contents)) == 24
        assert sum(map(len, three(splits))) == 24 + 18


def test_a_picture_under_two_classes_is_reported_and_stays_in_one_split(tmp_path):
    write_classes(tmp_path, ants=10, bees=10)
    for i in range(5):
        shutil.copy(tmp_path / f"ants/00{i}.ppm", tmp_path / f"bees/ant{i}.ppm")
    for seed in range(5):
        with pytest.warns(
            UserWarning, match=r"two classes \(5\).*00\d\.ppm = .*ant\d\.ppm"
        ) as seen:
            splits = data_setup.load(tmp_path, seed=seed)
        assert len(seen) == 1
        contents = [{path.read_bytes() for path, _ in split.samples} for split in three(splits)]
        assert sum(map(len, contents)) == 20
        assert [split.targets.count(0) for split in three(splits)] == [6, 2, 2]


def test_too_few_pictures_of_a_class_are_an_error_with_the_numbers(tmp_path):
    write_classes(tmp_path, ants=9, bees=2)
    shutil.copy(tmp_path / "bees/000.ppm", tmp_path / "bees/copy.ppm")
    with pytest.raises(ValueError, match=r"'bees' .*different images.*: 2, and at least 3 are"):
        data_setup.load(tmp_path)


@pytest.mark.parametrize("fractions", [(0, 0.2), (0.5, 0.5), (-0.1, 0.2)])
def test_impossible_fractions_are_an_error(tmp_path, fractions):
    write_classes(tmp_path, ants=9, bees=9)
    with pytest.raises(ValueError, match="fractions"):
        data_setup.load(tmp_path, val_fraction=fractions[0], test_fraction=fractions[1])


@pytest.mark.parametrize("count", range(3, 12))
@pytest.mark.parametrize("fractions", [(0.05, 0.9), (0.9, 0.05), (0.49, 0.49), (0.01, 0.01)])
def test_every_split_gets_a_picture_of_every_class(tmp_path, count, fractions):
    write_classes(tmp_path, ants=count, bees=count)
    splits = data_setup.load(tmp_path, val_fraction=fractions[0], test_fraction=fractions[1])
    assert all(set(split.targets) == {0, 1} for split in three(splits))


def test_a_picture_in_two_given_splits_is_reported_with_both_names(tmp_path):
    for start, split in ((0, "train"), (100, "val"), (200, "test")):
        write_classes(tmp_path / split, start, ants=5, bees=5)
    shutil.copy(tmp_path / "train/ants/002.ppm", tmp_path / "test/ants/again.ppm")
    expected = r"two splits \(1\).*train.ants.002\.ppm = .*test.ants.again\.ppm"
    with pytest.warns(UserWarning, match=expected) as seen:
        data_setup.load(tmp_path)
    assert len(seen) == 1 and seen[0].filename == __file__


def test_a_data_set_is_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setitem(data_setup.DATA_SETS, "charts", tmp_path / "charts")
    with pytest.raises(FileNotFoundError, match=r"python data.draw_charts\.py"):
        data_setup.load("charts")
    write_classes(tmp_path / "charts", ants=5, bees=5)
    assert data_setup.load("charts").source == "charts"
    with pytest.raises(
        FileNotFoundError, match=r"chart is neither .*\(charts, hymenoptera, .*food101\)"
    ):
        data_setup.load("chart")


def test_the_summary_counts_every_split_and_class(tmp_path):
    splits = data_setup.load(write_classes(tmp_path, ants=30, bumblebees=10))
    first, *table = splits.summary().splitlines()
    assert first.startswith(f"{tmp_path}: val is 20% of each class, test is 20% of each class")
    assert table == [
        "            train  val  test",
        "ants           18    6     6",
        "bumblebees      6    2     2",
        "all            24    8     8",
    ]


def test_the_summary_of_many_classes_is_short(tmp_path):
    write_classes(tmp_path, **{f"class_{i}": 5 + i % 6 for i in range(60)})
    lines = data_setup.load(tmp_path).summary().splitlines()
    assert len(lines) == 4
    assert lines[2].split() == ["each", "of", "60", "classes", "3-6", "1-2", "1-2"]


# --- Data sets ----------------------------------------------------------------------------------


def test_a_data_set_without_a_transform_shows_its_pictures(tmp_path):
    splits = data_setup.load(write_classes(tmp_path, ants=5, bees=5))
    image, label = splits.train[-1]
    assert (image.mode, image.size, label) == ("RGB", (2, 2), 1)


def test_few_pictures_of_each_class_are_part_of_more(tmp_path):
    dataset = data_setup.load(write_classes(tmp_path, ants=40, bees=30)).train
    five, ten = dataset.few(5), dataset.few(10)
    assert Counter(five.targets) == {0: 5, 1: 5} and Counter(ten.targets) == {0: 10, 1: 10}
    assert set(five.samples) < set(ten.samples) < set(dataset.samples)
    assert dataset.few(5).samples == five.samples
    assert set(dataset.few(5, seed=1).samples) != set(five.samples)
    with pytest.raises(ValueError, match="'bees' has 18 images, not 20"):
        dataset.few(20)


@pytest.fixture
def odd_pictures(tmp_path) -> list[tuple[Path, int]]:
    """Pictures larger, smaller, wider and taller than the crop, in several modes."""
    images = [
        noise(0, (150, 100)),
        noise(1, (20, 300)),
        noise(2, (30, 31)).convert("L"),
        noise(3, (64, 64)).convert("P"),
        noise(4, (90, 70)).convert("LA"),
        Image.open(PHOTO).reduce(4),
    ]
    for i, image in enumerate(images):
        image.save(tmp_path / f"{i}.png")
    return [(tmp_path / f"{i}.png", i % 2) for i in range(len(images))]


@pytest.mark.parametrize("model", ["resnet18", "vit_h_14", "inception_v3", "efficientnet_lite0"])
def test_kept_pictures_are_the_same_bit_for_bit(odd_pictures, model):
    transform = data_setup.create_transform(model, size=64)
    dataset = data_setup.ImageDataset(odd_pictures, ["a", "b"], transform)
    assert dataset.is_kept_in_memory
    for _ in range(2):
        for i, (path, label) in enumerate(odd_pictures):
            images, labels = dataset[i]
            assert labels == label
            assert torch.equal(images, transform(data_setup.load_image(path)))


def test_a_picture_is_decoded_once(odd_pictures):
    transform = data_setup.create_transform("resnet18", size=32)
    dataset = data_setup.ImageDataset(odd_pictures, ["a", "b"], transform)
    before, _ = dataset[0]
    before_ = before.clone()
    before.zero_()  # what a caller does to a tensor must not reach the kept one
    odd_pictures[0][0].unlink()
    assert torch.equal(dataset[0][0], before_)
    with pytest.raises(FileNotFoundError):
        pickle.loads(pickle.dumps(dataset))[0]  # a worker process starts with nothing


def test_another_transform_reads_the_pictures_again(odd_pictures):
    dataset = data_setup.ImageDataset(
        odd_pictures, ["a", "b"], data_setup.create_transform("resnet18", size=32)
    )
    assert dataset[0][0].shape == (3, 32, 32)
    dataset.transform = data_setup.create_transform("resnet18", size=48)
    assert dataset[0][0].shape == (3, 48, 48)


def test_a_set_larger_than_the_budget_is_not_kept(odd_pictures, monkeypatch):
    transform = data_setup.create_transform("resnet18", size=32)
    dataset = data_setup.ImageDataset(odd_pictures, ["a", "b"], transform)
    needed = len(odd_pictures) * 3 * 32 * 32
    assert 2**28 <= dataset_module.memory_budget() <= 2**31
    monkeypatch.setattr(dataset_module, "memory_budget", lambda: needed)
    assert dataset.is_kept_in_memory
    monkeypatch.setattr(dataset_module, "memory_budget", lambda: needed - 1)
    assert not dataset.is_kept_in_memory
    expected = transform(data_setup.load_image(odd_pictures[0][0]))
    assert torch.equal(dataset[0][0], expected)
    odd_pictures[0][0].unlink()
    with pytest.raises(FileNotFoundError):
        dataset[0]


def test_a_fingerprint_is_of_files_labels_order_and_transform(odd_pictures, tmp_path):
    def fingerprint(samples=odd_pictures, size=32, **options):
        transform = data_setup.create_transform("resnet18", size=size, **options)
        return data_setup.ImageDataset(samples, ["a", "b"], transform).fingerprint()

    (path, label), *others = odd_pictures
    first = fingerprint()
    assert fingerprint() == first
    elsewhere = tmp_path / "elsewhere.png"
    shutil.copyfile(path, elsewhere)
    os.utime(elsewhere, (0, 0))
    assert fingerprint([(elsewhere, label), *others]) == first  # neither names nor dates
    assert fingerprint([(path, 1 - label), *others]) != first
    assert fingerprint([*others, (path, label)]) != first
    assert fingerprint(size=48) != first
    assert fingerprint(augment=True) is None

    date = path.stat().st_mtime_ns
    path.write_bytes(path.read_bytes() + b" ")
    os.utime(path, ns=(date, date))
    assert fingerprint() != first


def test_a_content_key_is_of_files_and_labels_in_order_alone(odd_pictures, tmp_path):
    moved = [(shutil.copy(path, tmp_path / f"moved{path.name}"), n) for path, n in odd_pictures]
    augmented = data_setup.create_transform("resnet18", size=32, augment=True)
    dataset = data_setup.ImageDataset(odd_pictures, ["a", "b"])
    key = dataset.content_key()
    assert data_setup.ImageDataset(moved, ["a", "b"], augmented).content_key() == key
    assert data_setup.ImageDataset(odd_pictures[::-1], ["a", "b"]).content_key() != key
    (path, label), *others = odd_pictures
    assert data_setup.ImageDataset([(path, 1 - label), *others], ["a", "b"]).content_key() != key
    noise(98, (150, 100)).save(path)
    assert dataset.content_key() != key


def test_what_is_kept_is_never_older_than_the_fingerprint(odd_pictures):
    transform = data_setup.create_transform("resnet18", size=32)
    dataset = data_setup.ImageDataset(odd_pictures, ["a", "b"], transform)
    before, _ = dataset[0]
    noise(99, (150, 100)).save(odd_pictures[0][0])
    dataset.fingerprint()
    assert not torch.equal(dataset[0][0], before)


def test_an_augmented_set_is_not_kept(odd_pictures):
    transform = data_setup.create_transform("resnet18", size=32, augment=True)
    dataset = data_setup.ImageDataset(odd_pictures, ["a", "b"], transform)
    assert not dataset.is_kept_in_memory
    assert not torch.equal(dataset[0][0], dataset[0][0])


# --- Transforms ---------------------------------------------------------------------------------

CLASSIFIERS = list_models(module=sys.modules["torchvision.models"])


@pytest.mark.parametrize("model", [*CLASSIFIERS, "efficientnet_lite0"])
def test_the_transform_is_the_one_of_the_weights(model):
    expected = get_model_weights(model).DEFAULT.transforms()
    transform = data_setup.create_transform(model)
    assert type(transform) is ImageClassification
    assert str(transform) == str(expected)
    small = data_setup.create_transform(model, size=96)
    assert small.crop_size == [96]
    assert small.resize_size[0] / 96 == pytest.approx(
        expected.resize_size[0] / expected.crop_size[0], abs=0.006
    )


def red_edges(width, height):
    """Draw a green image with red edges of four pixels at its two far ends."""
    image = Image.new("RGB", (width, height), "red")
    inner = (width - 8, height) if width > height else (width, height - 8)
    image.paste("green", ((width - inner[0]) // 2, (height - inner[1]) // 2, *inner))
    return image


@pytest.mark.parametrize("resize", ["squash", "pad"])
@pytest.mark.parametrize("sides", [(200, 100), (100, 200)])
def test_squashing_and_padding_cut_nothing_off(resize, sides):
    def red(resize):
        transform = data_setup.create_transform("efficientnet_lite0", size=64, resize=resize)
        pixels = transform(red_edges(*sides)) * 0.5 + 0.5
        assert pixels.shape == (3, 64, 64)
        return (pixels[0] - pixels[1] > 0.3).sum()

    assert red("crop") == 0 < red(resize)


@pytest.mark.parametrize("resize", ["squash", "pad"])
def test_images_kept_in_memory_are_prepared_the_same_way(resize, tmp_path):
    path = tmp_path / "a.png"
    red_edges(91, 40).save(path)
    transform = data_setup.create_transform("resnet18", size=32, resize=resize)
    dataset = data_setup.ImageDataset([(path, 0)], ["a", "b"], transform)
    assert dataset.is_kept_in_memory and dataset.fingerprint()
    with Image.open(path) as image:
        assert torch.equal(dataset[0][0], transform(image))


def test_an_unknown_way_to_resize_is_refused():
    with pytest.raises(ValueError, match="use one of crop, squash, pad"):
        data_setup.create_transform("resnet18", resize="stretch")


@pytest.mark.parametrize(
    ("name", "weights"), [("resnet50", "IMAGENET1K_V1"), ("vit_b_16", "IMAGENET1K_SWAG_E2E_V1")]
)
def test_other_weights_than_the_default_have_their_own_transform(name, weights):
    expected = get_model_weights(name)[weights].transforms()
    assert str(data_setup.create_transform(name, weights)) == str(expected)
    assert str(data_setup.create_transform(name)) != str(expected)


def test_a_model_that_does_not_classify_images_is_an_error():
    with pytest.raises(ValueError, match="fcn_resnet50"):
        data_setup.create_transform("fcn_resnet50")
    with pytest.raises(ValueError, match="resnet_18"):
        data_setup.create_transform("resnet_18")


@pytest.mark.parametrize("augment", ["light", "trivial"])
@pytest.mark.parametrize("mirror", [True, False])
def test_left_and_right_are_swapped_only_where_that_is_allowed(augment, mirror):
    image = Image.new("RGB", (99, 99))
    image.paste("white", (0, 0, 12, 99))  # at the left, where a crop may lose it
    transform = data_setup.create_transform(
        "efficientnet_lite0", size=32, augment=augment, mirror=mirror
    )
    torch.manual_seed(0)
    versions = torch.stack([transform(image) for _ in range(60)]).mean(dim=(1, 2))  # (60, 32)
    swapped = versions[:, -1] > versions[:, 0] + 0.5
    assert swapped.any() == mirror


@pytest.mark.parametrize("none", [False, "none"])
def test_no_augmentation_is_the_plain_transform(none):
    plain = data_setup.create_transform("resnet18", size=32)
    assert str(data_setup.create_transform("resnet18", size=32, augment=none)) == str(plain)
    with pytest.raises(ValueError, match="augment='wild': use one of none, light, trivial"):
        data_setup.create_transform("resnet18", augment="wild")


@pytest.mark.parametrize("model", ["resnet18", "vit_h_14", "efficientnet_lite0"])
def test_augmented_pictures_have_the_values_of_the_others(model):
    plain = data_setup.create_transform(model, size=64)
    augmented = data_setup.create_transform(model, size=64, augment=True)
    black, white = Image.new("RGB", (99, 80)), Image.new("RGB", (99, 80), "white")
    torch.testing.assert_close(augmented(black), plain(black))  # no jitter changes black
    brightest = torch.stack([augmented(white) for _ in range(20)]).amax(0)
    torch.testing.assert_close(brightest, plain(white))

    photo = data_setup.load_image(PHOTO)
    torch.manual_seed(0)
    many = torch.stack([augmented(photo) for _ in range(40)])
    one = plain(photo)
    assert type(many[0]) is type(one) and many.dtype == one.dtype and many[0].shape == one.shape
    assert abs(many.mean() - one.mean()) < 0.3 and abs(many.std() / one.std() - 1) < 0.2


def test_augmentation_repeats_with_the_seed():
    augmented = data_setup.create_transform("resnet18", size=32, augment=True)
    photo = data_setup.load_image(PHOTO)
    torch.manual_seed(3)
    first = augmented(photo)
    second = augmented(photo)
    torch.manual_seed(3)
    assert torch.equal(augmented(photo), first) and not torch.equal(first, second)


# --- Dataloaders --------------------------------------------------------------------------------


@pytest.fixture
def splits(tmp_path) -> data_setup.ImageSplits:
    return data_setup.load(write_classes(tmp_path, ants=30, bees=25))


@pytest.fixture
def transform() -> ImageClassification:
    return data_setup.create_transform("resnet18", size=16)


def order(dataloader) -> list[list[float]]:
    return [images.sum((1, 2, 3)).tolist() for images, _ in dataloader]


def test_a_batch_is_what_the_transform_made(splits, transform):
    dataloader = data_setup.create_dataloader(splits.val, transform, batch_size=4)
    batches = list(dataloader)
    assert [len(labels) for _, labels in batches] == [4, 4, 3]
    for start, (images, labels) in zip(range(0, 11, 4), batches, strict=True):
        samples = splits.val.samples[start : start + 4]
        expected = [(transform(data_setup.load_image(path)), label) for path, label in samples]
        expected_images, expected_labels = default_collate(expected)
        assert torch.equal(images, expected_images) and torch.equal(labels, expected_labels)
    assert splits.val.transform is None


def test_a_seed_fixes_the_order_whatever_else_is_random(splits, transform):
    def shuffled(seed):
        return data_setup.create_dataloader(
            splits.train, transform, batch_size=8, shuffle=True, seed=seed
        )

    torch.manual_seed(0)
    dataloader = shuffled(1)
    first, second = order(dataloader), order(dataloader)
    torch.rand(1), random.random()
    assert order(shuffled(1)) == first != second
    assert order(shuffled(2)) != first
    torch.manual_seed(5)
    unseeded = order(shuffled(None))
    torch.manual_seed(5)
    assert order(shuffled(None)) == unseeded != first
    assert sorted(chain(*first)) == sorted(chain(*second)) and len([*chain(*first)]) == 33


def test_a_batch_with_an_unreadable_picture_names_it(splits, transform):
    path, _ = splits.train.samples[3]
    path.write_bytes(b"P6 2 2 255")
    with pytest.raises(ValueError, match=path.name) as error:
        next(iter(data_setup.create_dataloader(splits.train, transform)))
    # A worker process hands on the kind of an error and its text.
    assert str(type(error.value)(str(error.value))) == str(error.value)


def test_workers_make_the_same_batches(splits, transform):
    alone = data_setup.create_dataloader(splits.train, transform, num_workers=0)
    helped = data_setup.create_dataloader(splits.train, transform, num_workers=2)
    for _ in range(2):
        for (images, labels), (images_, labels_) in zip(alone, helped, strict=True):
            assert torch.equal(images, images_) and torch.equal(labels, labels_)


@pytest.mark.parametrize(
    ("cuda", "platform", "expected"),
    [(False, "linux", 0), (True, "linux", 3), (True, "win32", 0), (False, "darwin", 0)],
)
def test_workers_are_used_where_they_help(monkeypatch, splits, cuda, platform, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    assert data_setup.default_num_workers() == expected


def test_a_set_that_is_kept_needs_no_workers(monkeypatch, splits, transform):
    monkeypatch.setattr(data_setup, "default_num_workers", lambda: 2)
    augmented = data_setup.create_transform("resnet18", size=16, augment=True)
    assert data_setup.create_dataloader(splits.train, transform).num_workers == 0
    assert data_setup.create_dataloader(splits.train, augmented).num_workers == 2


def test_the_call_of_the_well_known_course(tmp_path, transform, no_warnings):
    write_classes(tmp_path / "train", steak=10, pizza=11, sushi=12)
    write_classes(tmp_path / "test", 100, steak=3, pizza=4, sushi=5)
    train_dataloader, test_dataloader, class_names = data_setup.create_dataloaders(
        train_dir=str(tmp_path / "train"),
        test_dir=str(tmp_path / "test"),
        transform=transform,
        batch_size=32,
        num_workers=0,
    )
    assert class_names == ["pizza", "steak", "sushi"]
    assert [len(labels) for _, labels in train_dataloader] == [32, 1]
    assert order(train_dataloader) != order(train_dataloader)
    assert order(test_dataloader) == order(test_dataloader)
    assert train_dataloader.dataset.classes == test_dataloader.dataset.classes == class_names
    positional = data_setup.create_dataloaders(
        tmp_path / "train", tmp_path / "test", transform, 32, 0
    )
    assert positional[2] == class_names


def test_the_course_call_reports_what_load_reports(tmp_path, transform):
    write_classes(tmp_path / "train", ants=4, bees=4)
    write_classes(tmp_path / "test", 100, ants=4)
    folders = (tmp_path / "train", tmp_path / "test")
    with pytest.raises(ValueError, match="test has no usable image of bees"):
        data_setup.create_dataloaders(*folders, transform, 32)
    write_classes(tmp_path / "test", 200, bees=4)
    shutil.copy(tmp_path / "train/ants/002.ppm", tmp_path / "test/ants/again.ppm")
    with pytest.warns(UserWarning, match=r"002\.ppm = .*again\.ppm"):
        data_setup.create_dataloaders(*folders, transform, 32)

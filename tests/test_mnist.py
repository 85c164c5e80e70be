"""The subset of MNIST in the package, and where it came from."""

import hashlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import evsnn.datasets
from evsnn.datasets import embedded_mnist, load_idx_folder

SUBSET = Path(evsnn.datasets.__file__).parent / "mnist_subset"
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
FULL = BENCHMARKS / "data" / "mnist"

needs_full_set = pytest.mark.skipif(not FULL.is_dir(), reason="the full MNIST is not in benchmarks/data")


def test_embedded():
    sets = embedded_mnist()
    assert list(sets) == ["train", "test"]
    for name, each in (("train", 500), ("test", 100)):
        digits = sets[name]
        assert digits.images.shape == (10 * each, 28, 28)
        assert digits.classes == 10
        assert np.bincount(digits.labels).tolist() == [each] * 10
        # Strokes of ink on paper: neither blank nor noise, and none twice.
        assert 0.1 < np.mean(digits.images > 0) < 0.3
        assert len({image.tobytes() for image in digits.images}) == 10 * each
        for file, digest in digits.source.items():
            assert hashlib.sha256((SUBSET / file).read_bytes()).hexdigest() == digest
    assert len(sets["train"].source) == 2
    # The first digits of both sets, known to everybody who ever printed them.
    assert sets["train"].labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert sets["test"].labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]


def test_embedded_is_a_folder_of_the_usual_names():
    sets = load_idx_folder(SUBSET)
    np.testing.assert_array_equal(sets["train"].images, embedded_mnist()["train"].images)


def test_licence_states_what_is_there():
    text = (SUBSET / "LICENSE.md").read_text(encoding="utf-8")
    for word in ("Yann LeCun", "Corinna Cortes", "Burges", "Attribution-Share Alike 3.0"):
        assert word in text
    files = sorted(SUBSET.glob("*.gz"))
    assert len(files) == 4
    for file in files:
        assert hashlib.sha256(file.read_bytes()).hexdigest() in text
    assert sum(file.stat().st_size for file in files) < 1_200_000
    assert not re.search(r"/(home|work|tmp|root)/", text)


@pytest.fixture(scope="module")
def maker():
    path = BENCHMARKS / "make_mnist_subset.py"
    if not path.is_file():
        pytest.skip("benchmarks are not here")
    spec = importlib.util.spec_from_file_location("make_mnist_subset", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_first_of_each(maker):
    labels = np.array([*range(10), *range(10), *reversed(range(10))], np.uint16)
    assert maker.first_of_each(labels, 2).tolist() == list(range(20))
    assert maker.first_of_each(labels[::-1], 1).tolist() == list(range(10))


@needs_full_set
def test_subset_is_the_first_of_each_digit_and_keeps_off_the_validation_set():
    sets, full = embedded_mnist(), load_idx_folder(FULL)
    for name, below, each in (("train", 50_000, 500), ("test", 10_000, 100)):
        where = {image.tobytes(): i for i, image in reversed(list(enumerate(full[name].images)))}
        chosen = np.array([where[image.tobytes()] for image in sets[name].images])
        assert np.all(np.diff(chosen) > 0)
        assert chosen.max() < below
        assert full[name].labels[chosen].tolist() == sets[name].labels.tolist()
        for digit in range(10):
            of_digit = np.flatnonzero(full[name].labels == digit)[:each]
            assert np.all(np.isin(of_digit, chosen))


@needs_full_set
def test_making_it_again_gives_the_same_content(maker, tmp_path):
    for run in ("one", "two"):
        maker.main(FULL, tmp_path / run)
    names = sorted(path.name for path in SUBSET.iterdir())
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == names
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    # Another zlib may pack into other bytes; the content is the same.
    again, shipped = load_idx_folder(tmp_path / "one"), embedded_mnist()
    for name in ("train", "test"):
        np.testing.assert_array_equal(again[name].images, shipped[name].images)
        np.testing.assert_array_equal(again[name].labels, shipped[name].labels)


def test_the_network_is_not_loaded_to_read_files():
    code = "import sys, evsnn.datasets; print([m for m in ('requests', 'pooch', 'tqdm') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(evsnn.datasets.__file__).parents[2],
    )
    assert done.stdout.strip() == "[]"

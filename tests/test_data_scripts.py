"""scripts/data: what would be fetched, and files checked against recorded sums (addresses are files here)."""

import hashlib
import zipfile

import pytest

from llava.eval.benchmarks import BENCHMARKS
from tests.script_runs import ROOT, run_script

SCRIPT = """
set -euo pipefail
source {root}/scripts/data/lib.sh
about "A thing" "CC0"
by_hand thing/form.json "ask the owners"
fetch "1 KB" file://{source} thing/images.zip
unpack thing/images.zip thing
"""


@pytest.fixture
def source(tmp_path):
    """What lies at the address: an archive with one image."""
    with zipfile.ZipFile(tmp_path / "source.zip", "w") as archive:
        archive.writestr("images/1.jpg", "an image")
    return tmp_path / "source.zip"


@pytest.fixture
def run(source, tmp_path):
    """Run a script like those of scripts/data, with sums and data in the test's folder."""
    script = tmp_path / "thing.sh"
    script.write_text(SCRIPT.format(root=ROOT, source=source))
    places = {"DATA_ROOT": str(tmp_path / "data"), "CHECKSUMS": str(tmp_path / "checksums.txt")}
    return lambda *words: run_script(str(script), *words, **places)


def line_of(source):
    return f"{hashlib.sha256(source.read_bytes()).hexdigest()}  thing/images.zip\n"


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_dry_run_says_what_is_not_verified_and_fetches_nothing(name, tmp_path):
    done = run_script(f"scripts/data/{name}.sh", "--dry-run", DATA_ROOT=str(tmp_path / "data"))
    assert done.returncode == 0, done.stderr
    title, licence, *rest = done.stdout.splitlines()
    assert title.startswith("== ")
    assert licence.startswith("   licence: ")
    assert licence.endswith("(not verified: read the terms of its owners)")
    fetched = [line for line in rest if "would fetch" in line]
    assert all("; address and size not verified)" in line for line in fetched)
    assert fetched or any("BY HAND" in line for line in rest)
    assert not (tmp_path / "data").exists()


def test_without_a_recorded_sum_the_output_says_not_verified_and_how_to_add_one(run, source, tmp_path):
    done = run()
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "data/thing/images/1.jpg").read_text() == "an image"
    assert f"thing.sh --record adds: {line_of(source)}" in done.stdout
    assert "not verified: " in done.stdout
    assert not (tmp_path / "checksums.txt").exists()
    assert "there already: " in run().stdout


def test_a_recorded_sum_is_written_once_and_checked_from_then_on(run, source, tmp_path):
    (tmp_path / "checksums.txt").write_text("# comment\n")
    assert "recorded in" in run("--record").stdout
    assert "verified: sha256 as in" in run("--record").stdout
    assert (tmp_path / "checksums.txt").read_text() == "# comment\n" + line_of(source)
    assert "there already, on record" in run().stdout
    assert "there already, on record" in run("--dry-run").stdout


def test_what_is_done_by_hand_is_checked_too(run, tmp_path):
    form = tmp_path / "data/thing/form.json"
    assert f"BY HAND {form}: ask the owners" in run().stdout
    form.write_text("{}")
    assert "thing/form.json" in run("--record").stdout
    form.write_text("{} ")
    assert f"{form} has sha256 " in run().stderr


def test_a_download_with_another_sum_is_refused_and_not_unpacked(run, source, tmp_path):
    (tmp_path / "checksums.txt").write_text(line_of(source).replace(line_of(source)[:8], "00000000"))
    done = run()
    assert done.returncode == 1
    assert "images.zip.part has sha256 " in done.stderr
    assert "says 00000000" in done.stderr
    assert [path.name for path in (tmp_path / "data/thing").iterdir()] == ["images.zip.part"]


def test_a_file_that_changed_on_disk_is_refused(run, tmp_path):
    run("--record")
    with (tmp_path / "data/thing/images.zip").open("ab") as file:
        file.write(b"0")
    done = run()
    assert done.returncode == 1
    assert "it is broken or another release. Remove it and start again" in done.stderr


def test_another_word_is_refused(run):
    done = run("--force")
    assert done.returncode == 2
    assert "[--dry-run|--record]" in done.stderr

import pytest

from llava.eval.available import main
from llava.toy.benchmarks import QUICKSTART, SMALL


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("eval")
    for name in ("pope", "mmbench", "scienceqa"):
        (QUICKSTART | SMALL)[name](folder / name, seed=0, count=6)
    return folder


def test_what_can_be_run_is_listed_and_the_rest_has_a_reason(world, capsys):
    main(["--data_root", str(world)])
    shown = capsys.readouterr()
    assert shown.out.split() == ["scienceqa", "mmbench", "pope"]
    reasons = dict(line.removeprefix("skipped ").split(": ", 1) for line in shown.err.splitlines())
    assert len(reasons) == 8
    assert "no such file" in reasons["gqa"]
    assert reasons["gqa"].endswith("; scripts/data/gqa.sh says where to get it")


def test_missing_images_are_a_reason(world, capsys):
    image = next((world / "pope" / "val2014").iterdir())
    content = image.read_bytes()
    image.unlink()
    main(["--data_root", str(world)])
    image.write_bytes(content)
    shown = capsys.readouterr()
    assert "pope" not in shown.out
    assert "skipped pope: 6 of 6 images are missing" in shown.err


def test_a_broken_file_is_called_broken(world, capsys):
    path = world / "mmbench" / "mmbench_dev_20230712.tsv"
    content = path.read_text()
    path.write_text(content[: len(content) // 2])
    main(["--data_root", str(world)])
    path.write_text(content)
    assert "skipped mmbench: broken: " in capsys.readouterr().err


def test_no_data_at_all_is_an_error(tmp_path):
    with pytest.raises(SystemExit, match="no benchmark's data lies in"):
        main(["--data_root", str(tmp_path)])

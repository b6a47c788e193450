"""How figures are saved."""

from PIL import Image

from dpn.analysis.style import new_figure, save


def test_text_is_drawn_as_it_is_wherever_it_stands(tmp_path):
    """Each of these is a formula to matplotlib, and none a valid one."""
    figure = new_figure(3, 2)
    left, right = figure.subfigures(1, 2)
    axes = left.subplots()
    axes.plot([0, 1], label="$^^$")
    axes.set_title("$a_ $b^")
    axes.set_yticks([0, 1], [r"$\frac$", "b"])
    axes.text(0, 0, "$6_ {$")
    axes.legend()
    right.suptitle("$^^$")
    figure.suptitle("$_$")
    save(figure, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (450, 300)

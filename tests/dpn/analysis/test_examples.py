import pytest

from dpn.analysis.examples import question_line, stage_grids


def test_each_stage_has_the_grid_that_its_kernel_leaves():
    assert stage_grids(576, ["1x2", "1x1", "2x2"]) == [(24, 24), (24, 12), (24, 12), (12, 6)]


def test_an_edge_that_does_not_divide_keeps_a_smaller_cell():
    assert stage_grids(25, ["2x2"]) == [(5, 5), (3, 3)]


def test_tokens_that_form_no_square_are_refused():
    with pytest.raises(ValueError, match="10 visual tokens are no square grid"):
        stage_grids(10, [])


def test_the_question_is_shown_without_ocr_tokens():
    assert question_line("Reference OCR token: A\nWhat?\nAnswer briefly.") == "What?"
    assert question_line("Reference OCR token: A\nReference OCR token: B") == "Reference OCR token: A"
    assert question_line("") == ""
    assert question_line("What?\nReference OCR token: A\nAnswer briefly.") == "What?"

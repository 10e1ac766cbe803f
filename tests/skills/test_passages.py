from __future__ import annotations

from dataclasses import replace

import pytest

from duologue.errors import ConfigError
from duologue.skills.passages import Knowledge, passages


def test_the_passage_that_answers_is_found_and_its_source_named(folder, ask, context):
    context = replace(context, knowledge=Knowledge(folder))
    said = ask("look_up", "look up the wifi password in the documents", context)
    assert said == "From house rules: The wifi password is on the fridge."
    said = ask("look_up", "what do my notes say about the roses", context)
    assert said == "From garden: Roses. Cut them back in March twenty twenty-six."
    said = ask("look_up", "according to the house rules when do quiet hours start", context)
    assert said == "From house rules: Quiet hours start at twenty-two o'clock."


def test_a_question_that_the_folder_covers_is_answered_unasked_and_no_other(folder, ask, context):
    context = replace(context, knowledge=Knowledge(folder))
    assert (
        ask("look_up", "where is the wifi password", context) == "From house rules: The wifi password is on the fridge."
    )
    assert ask("look_up", "why are roses red", context) is None
    assert ask("look_up", "what is the capital of france", context) is None


def test_nothing_known_is_said(folder, ask, context):
    context = replace(context, knowledge=Knowledge(folder))
    assert ask("look_up", "look up quantum chromodynamics", context) == "I found nothing about that."
    assert ask("look_up", "look up the roses", replace(context, knowledge=None)) is None


def test_only_texts_inside_the_folder_are_read(folder, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "secret.txt"
    outside.write_text("The secret is xylophone.")
    (folder / "link.txt").symlink_to(outside)
    assert Knowledge(folder).find("xylophone") is None
    assert Knowledge(folder).find("png") is None


def test_no_folder_and_no_text_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="gone"):
        Knowledge(tmp_path / "gone")
    with pytest.raises(ConfigError, match="got 0"):
        Knowledge(tmp_path)


def test_bytes_that_are_no_text_do_no_harm(tmp_path):
    (tmp_path / "noise.txt").write_bytes(bytes(range(256)) * 20)
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "good.txt").write_text("The lamp is green.")
    assert Knowledge(tmp_path).find("lamp").text == "The lamp is green."


def test_long_paragraphs_are_cut_between_sentences_and_headings_stay():
    found = passages("# Lamps\n\n" + "A lamp is green. " * 60)
    assert len(found) > 1
    assert all(part.startswith("Lamps. A lamp") and part.endswith("green.") for part in found)
    assert max(len(part.split()) for part in passages("word " * 1000)) <= 180

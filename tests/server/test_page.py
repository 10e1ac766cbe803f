"""The page, in a real browser, with the real server and with one that has bad days."""

from __future__ import annotations

import asyncio
import re

import numpy as np
import pytest
from browser import RATE, Page, between, chromium, pitch, pure, silence, sounding, wav
from fakes import DuplexEcho, EchoConfig, EchoModel
from fakes import tone as question
from page_server import scripted, tone
from serving import served

pytestmark = pytest.mark.browser

LONG = EchoConfig(answer="You spoke, and I answer at great length. " * 2, audio_ticks=80)  # 6.4 seconds
KEY = "a key that nobody guesses"


def asked(seconds: float) -> np.ndarray:
    return question(seconds, rate=RATE)


@pytest.fixture(scope="module")
def microphone(tmp_path_factory):
    """Two questions, the second over the answer to the first."""
    path = tmp_path_factory.mktemp("page") / "microphone.wav"
    return wav(path, silence(1.5), asked(1.0), silence(2.5), asked(1.0), silence(30))


def test_hands_free_it_hears_a_question_speaks_and_is_interrupted_by_the_next(microphone, tmp_path):
    with served(EchoModel(LONG)) as (address, server), chromium(microphone) as browser:
        page = Page(browser, address)
        page.phase("idle")
        page.page.check("#free")
        page.phase("answering")
        page.phase("listening")  # the second question
        page.phase("answering")
        page.wait(1)
        assert page.page.locator(".turn").count() == 2
        words = page.page.inner_text("#log")
        assert re.search(
            r"ticks in turn 1\n.*at great length.*interrupted after [12]\.\d s.*ticks in turn 2", words, re.S
        )
        delays = [int(ms) for ms in re.findall(r"(\d+) ms to first sound, heard here", words)]
        assert len(delays) == 2 and all(400 < ms < 2_500 for ms in delays), words  # 500 ms are the turn's own silence
        assert page.kinds()[-1] == "conversation.item.truncate" and server.pipeline.model.truncated
        you, it = page.heard(tmp_path / "talk.wav")
        (first, second), (answer, *_) = sounding(you, apart=0.5), sounding(it, apart=0.5)
        assert first[1] < answer[0] < second[0] < answer[1] < second[0] + 0.7  # it was cut soon after
        assert delays[0] == pytest.approx((answer[0] - first[1]) * 1000, abs=100)  # the number is what is heard
        text = page.saved("save-words", tmp_path / "talk.txt").read_text("utf-8")
        assert re.search(r"\[00:00:0\d\.\d\] you: sound for .*\n\[.*\] echo: You spoke.*\[interrupted\]", text)
        page.check()


PLAIN = ""
OWN_RATE = """  // as in Firefox: a microphone keeps to contexts of its own rate
const plain = AudioContext.prototype.createMediaStreamSource;
AudioContext.prototype.createMediaStreamSource = function (stream) {
  if (this.sampleRate !== 48000) throw new DOMException("different sample-rate", "NotSupportedError");
  return plain.call(this, stream);
};
const Own = AudioContext;
window.AudioContext = class extends Own {
  constructor(options) { super({ sampleRate: 48000, ...JSON.parse(JSON.stringify(options)) }); }
};
"""


@pytest.mark.parametrize("before", [PLAIN, OWN_RATE], ids=["one context", "resampled"])
def test_press_and_talk_with_the_space_bar_and_stop_with_it(before, tmp_path):
    mic = wav(tmp_path / "mic.wav", asked(60))
    with served(EchoModel(EchoConfig(audio_ticks=500))) as (address, _), chromium(mic) as browser:
        page = Page(browser, address, before=before)
        page.phase("idle")
        page.page.keyboard.down("Space")
        page.phase("listening")
        page.wait(2.5)  # long enough that a gap of a busy machine is no more than that
        page.page.keyboard.up("Space")
        page.phase("answering")
        page.sees("to first sound, heard here")
        page.wait(0.7)
        page.page.keyboard.down("Space")  # a tap stops it
        page.page.keyboard.up("Space")
        page.phase("idle")
        page.sees("interrupted after")
        kinds = [kind for kind in page.kinds() if kind != "input_audio_buffer.clear"]  # what was heard of the tap
        assert kinds[-4:] == [
            *("input_audio_buffer.commit", "response.create", "conversation.item.truncate", "response.cancel")
        ]
        you, it = page.heard(tmp_path / "talk.wav")
        (begin, end), *_ = sounding(you, apart=0.5)
        ((start, stop),) = sounding(it, apart=0.5)
        said, answered = between(you, begin + 0.2, end - 0.2), between(it, start + 0.2, stop - 0.2)
        assert pitch(said) == pytest.approx(300, abs=3) and pitch(answered) == pytest.approx(440, abs=3)
        assert pure(said) and np.abs(answered).max() == pytest.approx(0.3, abs=0.01)  # browsers turn microphones up
        assert end < start and 0.5 < stop - start < 3
        page.check()


def test_a_tap_on_a_phone_listens_until_the_next(tmp_path):
    mic = wav(tmp_path / "mic.wav", asked(60))
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    with served() as (address, _), chromium(mic) as browser:
        page = Page(browser, address, **phone)
        page.phase("idle")
        page.page.tap("#talk")
        page.phase("listening")
        page.sees("tap when you have asked")
        page.wait(0.6)
        page.page.tap("#talk")
        page.sees("ticks in turn 1")
        page.phase("idle")
        assert page.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.check()


def test_a_cough_holds_the_answer_which_then_goes_on_where_it_was(tmp_path):
    async def script(talk):
        await talk.greet()
        await talk.until("input_audio_buffer.append")
        name = await talk.begin()
        await talk.speak(name, tone(3))
        await talk.end(name)
        await asyncio.sleep(1)
        await talk.send("duologue.paused", audio_end_ms=900)
        await asyncio.sleep(1)
        await talk.send("duologue.resumed")
        await talk.until("nothing")

    with scripted(script) as (address, _), chromium() as browser:
        page = Page(browser, address)
        page.phase("idle")
        page.page.check("#free")
        page.phase("paused")
        page.phase("answering")
        page.phase("free")
        _, it = page.heard(tmp_path / "talk.wav")
        (first, second) = sounding(it, apart=0.5)
        assert second[0] - first[1] == pytest.approx(1.0, abs=0.25)
        played = sum(end - begin for begin, end in sounding(it, apart=0.01))  # not where a busy machine stutters
        assert played == pytest.approx(3.0, abs=0.02)  # nothing was lost
        page.check()


def test_the_buffer_grows_after_a_gap_and_shrinks_when_it_is_calm():
    async def script(talk):
        await talk.greet()
        await talk.until("input_audio_buffer.append")
        for number in range(5):
            name = await talk.begin()
            await talk.speak(name, tone(0.3))
            await asyncio.sleep(0.7 if number == 0 else 0)
            await talk.speak(name, tone(0.3))
            await talk.end(name)
            await asyncio.sleep(1)
        await talk.until("nothing")

    def buffer() -> int:
        return int(re.search(r"buffer (\d+) ms", page.page.inner_text("#diagnostics"))[1])

    with scripted(script) as (address, _), chromium() as browser:
        page = Page(browser, address)
        page.phase("idle")
        page.page.check("#free")
        page.sees("1 gap")
        grown = buffer()
        assert grown > 200
        page.page.wait_for_selector(".turn:nth-of-type(5)")
        page.phase("free")
        assert 40 <= buffer() < grown
        page.check()


def test_an_answer_stands_with_its_own_question_where_the_next_has_begun_already():
    async def script(talk):
        await talk.greet()
        await talk.until("input_audio_buffer.append")
        await talk.send("input_audio_buffer.speech_started", audio_start_ms=0, item_id="first")
        await talk.send("input_audio_buffer.speech_stopped", audio_end_ms=900, item_id="first")
        await talk.send("input_audio_buffer.committed", item_id="first")
        await talk.send("input_audio_buffer.speech_started", audio_start_ms=900, item_id="second")
        heard = "conversation.item.input_audio_transcription.completed"
        await talk.send(heard, item_id="first", transcript="Stop.")
        name = await talk.begin("All right.")
        await talk.speak(name, tone(0.3))
        await talk.end(name)
        await talk.until("nothing")

    with scripted(script) as (address, _), chromium() as browser:
        page = Page(browser, address)
        page.phase("idle")
        page.page.check("#free")
        page.sees("to first sound, heard here")
        page.phase("free")  # it does not listen for ever to a speech of which nothing more is heard
        assert re.match(r"you\s+Stop\.\s+mini\s+All right\.", page.page.locator(".turn").first.inner_text())
        page.check()


def test_the_numbers_of_an_answer_and_what_the_server_offers_beyond_the_protocol():
    async def script(talk):
        await talk.greet(duologue={"omega": {"value": 5, "min": 1, "max": 12}})
        await talk.until("input_audio_buffer.commit")
        name = await talk.begin()
        await talk.speak(name, tone(0.5))
        await talk.send(
            "duologue.metrics", response_id=name, first_audio_ms=212.4, audio_seconds=0.5, real_time_factor=0.31
        )
        await talk.send("something.new", from_="a later server")
        await talk.end(name)
        await talk.until("nothing")

    with scripted(script) as (address, talks), chromium() as browser:
        page = Page(browser, address)
        page.phase("idle")
        page.page.click("#talk", delay=600)
        page.sees("212 ms in the model")
        page.sees("0.5 s · 0.31× real time")
        page.phase("idle")
        page.page.click("#open-settings")
        page.page.focus("#omega")
        page.page.keyboard.press("ArrowRight")
        page.page.click("text=Done")
        page.wait(0.3)
        update = [event for event in talks[0].got if event["type"] == "session.update"][-1]
        assert update["session"]["duologue"] == {"omega": 6}
        assert "duologue" not in talks[0].got[0]["session"]  # before it was chosen
        page.check()


def test_a_full_server_says_so_and_lets_the_page_in_when_there_is_room(microphone):
    with served(max_sessions=1) as (address, _), chromium(microphone) as browser:
        first, second = Page(browser, address), None
        first.phase("idle")
        second = Page(browser, address)
        second.sees("The server is full")
        second.sees("Trying again in")
        assert second.page.is_disabled("#talk")
        first.page.close()
        second.phase("idle", within=30)
        assert not second.page.is_visible("#trouble")


def test_after_a_break_it_connects_again_and_tells_what_was_said():
    async def breaks(talk):
        await talk.greet()
        await talk.until("input_audio_buffer.append")
        name = await talk.begin("It will rain.")
        await talk.speak(name, tone(0.3))
        await talk.end(name)
        await asyncio.sleep(0.7)

    async def hangs_up(talk):
        return

    async def works(talk):
        await talk.greet()
        await talk.until("nothing")

    with scripted(breaks, hangs_up, works) as (address, talks), chromium() as browser:
        page = Page(browser, address)
        page.phase("idle")
        page.page.check("#free")
        page.sees("The connection broke")
        page.sees("The server does not answer")
        page.phase("free")
        page.wait(0.5)
        told = [event["item"] for event in talks[2].got if event["type"] == "conversation.item.create"]
        assert [(item["role"], item["content"][0]["text"]) for item in told] == [("assistant", "It will rain.")]
        page.check()


def test_a_key_is_asked_for_only_when_the_server_wants_one():
    with served(keys=[KEY]) as (address, _), chromium() as browser:
        page = Page(browser, address)
        page.sees("This server wants an API key")
        page.page.keyboard.type("not the key")
        page.page.keyboard.press("Enter")
        page.sees("does not know that key")
        page.page.keyboard.type(KEY.replace(" ", "-"))
        page.page.keyboard.press("Enter")
        page.sees("does not know that key")
    key = KEY.replace(" ", "-")
    with served(keys=[key]) as (address, _), chromium() as browser:
        page = Page(browser, address)
        page.sees("This server wants an API key")
        page.page.keyboard.type(key)
        page.page.keyboard.press("Enter")
        page.phase("idle")
        page.page.reload()
        page.phase("idle")  # it is kept for the tab
        assert not page.page.is_visible("#key-form") and page.page.evaluate("localStorage.length") == 0


async def waits(talk):
    await talk.greet()
    await talk.until("nothing")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("NotAllowedError", "not allowed for this page"),
        ("NotFoundError", "There is no microphone"),
        ("NotReadableError", "The microphone is taken"),
    ],
)
def test_it_says_why_there_is_no_microphone_and_tries_again(name, said):
    refuse = f"""
    const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    let refused = false;
    navigator.mediaDevices.getUserMedia = async wanted => {{
      if (refused) return ask(wanted);
      refused = true;
      throw new DOMException("no", "{name}");
    }};
    """
    with scripted(waits) as (address, _), chromium() as browser:
        page = Page(browser, address, before=refuse)
        page.phase("idle")
        page.page.click("#free")
        page.sees(said)
        assert not page.page.is_checked("#free")
        page.page.get_by_role("button", name="Try again").click()
        page.page.wait_for_selector("#trouble", state="hidden")
        page.page.check("#free")
        page.phase("free")
        page.check()


def test_a_page_that_is_neither_https_nor_localhost_says_so():
    switches = ("--host-resolver-rules=MAP elsewhere.test 127.0.0.1",)
    with scripted(waits) as (address, _), chromium(switches=switches) as browser:
        page = Page(browser, f"http://elsewhere.test:{address.split(':')[1]}/")
        page.sees("The microphone needs https or localhost")
        page.sees("--tls")
        page.check()


def test_every_control_has_a_name_and_the_keyboard_reaches_it_in_order():
    with scripted(waits) as (address, _), chromium() as browser:
        page = Page(browser, address)
        page.phase("idle")
        reached = []
        for _ in range(6):
            page.page.keyboard.press("Tab")
            reached.append(page.page.evaluate("document.activeElement.id || document.activeElement.className"))
        assert reached == ["skip", "log", "free", "talk", "open-save", "open-settings"]
        for role, name in [
            *(
                ("switch", "hands-free"),
                ("button", "Talk"),
                ("button", "Save the conversation"),
                ("button", "Settings"),
            ),
            *(("log", "Conversation"), ("heading", "duologue")),
        ]:
            assert page.page.get_by_role(role, name=name).count() == 1, (role, name)
        page.page.keyboard.press("Enter")  # opens the settings
        for name in ("Microphone", "Model", "Voice"):
            assert page.page.get_by_role("combobox", name=name).is_visible(), name
        page.page.keyboard.press("Escape")
        assert page.page.evaluate("document.activeElement.id") == "open-settings"
        page.page.focus("#talk")
        page.page.keyboard.press("Enter")  # begins to listen; again: asks
        page.phase("listening")
        page.page.keyboard.press("Escape")  # ... or not
        page.phase("idle")
        assert page.kinds()[-1] == "input_audio_buffer.clear"
        page.check()


def test_a_family_without_turns_is_talked_to_as_on_the_telephone(tmp_path):
    mic = wav(tmp_path / "mic.wav", silence(1.0), asked(2.0), silence(2.5), asked(60))
    with served(DuplexEcho()) as (address, _), chromium(mic) as browser:
        page = Page(browser, address)
        page.sees("press to begin")
        assert page.page.is_hidden("#free") and page.page.is_visible("#empty .duplex")
        assert page.page.locator("#talk").get_attribute("aria-label") == "Begin"
        page.page.keyboard.press("Space")
        page.phase("free")
        page.sees("also while it speaks")
        page.page.wait_for_selector(".it .said")
        page.page.locator(".turn").nth(1).wait_for(timeout=15_000)
        page.wait(1)
        page.page.keyboard.press("Space")
        page.phase("muted")
        page.wait(1.5)
        page.page.keyboard.press("Space")
        page.phase("free")
        page.wait(1)
        page.page.keyboard.press("Escape")
        page.sees("You have hung up.")
        kinds = [kind for kind in page.kinds() if kind != "session.input_audio.append"]
        assert kinds == ["session.start", "session.input_audio.mute", "session.input_audio.unmute"]
        words = page.page.inner_text("#log")
        assert re.match(r"you\n1 2 3[\d ]*\n\necho\nabc[a-z]*\n\nyou\n\d[\d ]*\n\necho\n[a-z]+", words), words
        you, it = page.heard(tmp_path / "talk.wav")
        said, answered = sounding(you, apart=0.5), sounding(it, apart=0.5)
        assert len(said) == 3 and len(answered) == 3  # twice, and again when it was unmuted
        for (begin, end), (start, stop) in zip(said, answered, strict=True):  # while it is spoken to, not after
            assert begin < start < begin + 1 and abs((stop - start) - (end - begin)) < 0.6
        page.page.click("#talk")
        page.phase("free")
        page.check()

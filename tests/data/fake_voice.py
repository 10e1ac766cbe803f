"""A program that "says" a text: one tone a letter. Called as `python fake_voice.py OUT TEXT`."""

import math
import struct
import sys
import wave

if __name__ == "__main__":
    out, text = sys.argv[1], sys.argv[2]
    if "unsayable" in text:
        sys.exit("cannot say that")
    samples = [
        int(8000 * math.sin(2 * math.pi * (150 + 10 * (ord(letter) % 32)) * n / 16_000))
        for letter in text
        for n in range(400)
    ]
    with wave.open(out, "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", "none"))
        file.writeframes(struct.pack(f"<{len(samples)}h", *samples))

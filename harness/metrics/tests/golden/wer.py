"""Golden values of word and character errors: jiwer 4.0.0, its default transforms, which strip outer white space for words
and characters and join inner white space for words alone.

python wer.py > wer.json
"""
import json
from importlib.metadata import version

import jiwer

PAIRS = [
    ("HE HOPED THERE WOULD BE STEW FOR DINNER", "HE HOPED THERE WOULD BE STEW FOR DINNER"),
    ("STUFF IT INTO YOU HIS BELLY COUNSELLED HIM", "STUFF IN TO YOU HIS BELLY COUNCIL HIM"),
    ("HE COULD WAIT NO LONGER", "HE COULD NOT WAIT LONGER"),
    ("FOR A FULL HOUR", ""),
    ("A", "A B C D"),
    ("THE CAT SAT ON THE MAT", "THE CAT ON THE MATS"),
    # outer white space
    (" A CAT", "A CAT "),
    ("  A CAT  ", "A  CAT"),
    ("A CAT", "   "),
    ("A CAT", " ACAT "),
    ("\u00a0A\u2003CAT\u001d", "\tA CAT\n"),
    # inner white space: alone it is kept, together it is one space, and only spaces part words
    ("A   BIG  CAT", "A BIG CAT"),
    ("A BIG CAT", "A \t BIG\n\nCAT"),
    ("A BIG CAT", "A\tBIG CAT"),
    ("A BIG CAT", "A\u00a0 BIG\u001c\u001cCAT"),
    # nothing to say
    ("", ""),
    ("", "A BC"),
    (" ", "A"),
    ("  ", " "),
]


def counts(result):
    return [result.hits, result.substitutions, result.deletions, result.insertions]


def pair(r, h):
    words, characters = jiwer.process_words(r, h), jiwer.process_characters(r, h)
    return {"reference": r, "hypothesis": h, "words": counts(words), "wer": words.wer,
            "characters": counts(characters), "cer": characters.cer}


references, hypotheses = [p[0] for p in PAIRS], [p[1] for p in PAIRS]
words, characters = jiwer.process_words(references, hypotheses), jiwer.process_characters(references, hypotheses)
print(json.dumps({
    "jiwer": version("jiwer"), "pairs": [pair(r, h) for r, h in PAIRS],
    "words": counts(words), "wer": words.wer, "characters": counts(characters), "cer": characters.cer,
}, indent=1))

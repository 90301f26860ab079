"""Golden values of word and character errors: jiwer 4.0.

python wer.py > wer.json
"""
import json

import jiwer

PAIRS = [
    ("HE HOPED THERE WOULD BE STEW FOR DINNER", "HE HOPED THERE WOULD BE STEW FOR DINNER"),
    ("STUFF IT INTO YOU HIS BELLY COUNSELLED HIM", "STUFF IN TO YOU HIS BELLY COUNCIL HIM"),
    ("HE COULD WAIT NO LONGER", "HE COULD NOT WAIT LONGER"),
    ("FOR A FULL HOUR", ""),
    ("A", "A B C D"),
    ("THE CAT SAT ON THE MAT", "THE CAT ON THE MATS"),
]


def counts(result):
    return [result.hits, result.substitutions, result.deletions, result.insertions]


references, hypotheses = [p[0] for p in PAIRS], [p[1] for p in PAIRS]
words, characters = jiwer.process_words(references, hypotheses), jiwer.process_characters(references, hypotheses)
print(json.dumps({
    "pairs": [{"reference": r, "hypothesis": h, "words": counts(jiwer.process_words(r, h)),
               "characters": counts(jiwer.process_characters(r, h))} for r, h in PAIRS],
    "words": counts(words), "wer": words.wer, "characters": counts(characters), "cer": characters.cer,
}, indent=1))

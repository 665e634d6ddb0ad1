"""The words for sounds, captions, questions, answers and instructions; and which of them training never sees.

Held out are whole wordings: a pattern that the evaluation uses, such as a way to ask for the background, occurs in no
training example. Its words do: a model of this size knows no others.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from alm2vec_integrations.instructions import DOC_INSTRUCTION, QUERY_INSTRUCTION, QUESTIONS

NAMES: dict[str, list[str]] = {
    "dog": ["a dog barking", "a dog", "a barking dog", "a dog's bark", "a hound barking"],
    "cat": ["a cat meowing", "a cat", "a meowing cat", "a cat's meow", "a kitten meowing"],
    "bird": ["a bird chirping", "a bird", "a chirping bird", "birdsong", "a bird singing"],
    "owl": ["an owl hooting", "an owl", "a hooting owl", "an owl's hoot"],
    "frog": ["a frog croaking", "a frog", "a croaking frog", "a toad croaking"],
    "duck": ["a duck quacking", "a duck", "a quacking duck", "a duck's quack"],
    "cow": ["a cow mooing", "a cow", "a mooing cow", "cattle lowing"],
    "sheep": ["a sheep bleating", "a sheep", "a bleating sheep", "a lamb bleating"],
    "knock": ["a knock on a door", "knocking", "someone knocking", "a knock on wood"],
    "church_bell": ["a church bell ringing", "a church bell", "a tolling bell", "a large bell"],
    "doorbell": ["a doorbell ringing", "a doorbell", "a door chime", "a ding-dong"],
    "phone": ["a telephone ringing", "a phone ringing", "a ringing phone", "a telephone"],
    "beep": ["an electronic beep", "a beep", "a beeping alarm", "a beeping device"],
    "car_horn": ["a car horn", "a car honking", "a honking car", "a vehicle's horn"],
    "gunshot": ["a gunshot", "a gun firing", "a shot from a gun", "a firearm going off"],
    "glass": ["glass breaking", "breaking glass", "a shattering window", "glass shattering"],
    "door": ["a door slamming", "a slamming door", "a door slammed shut", "a door banging"],
    "clap": ["a hand clap", "clapping", "someone clapping", "hands clapping"],
    "whistle": ["a person whistling", "a whistle", "someone whistling", "whistling"],
    "drip": ["water dripping", "a drop of water", "a dripping tap", "a drip of water"],
    "coin": ["a coin dropping", "a coin", "a coin falling on a table", "a clinking coin"],
    "laser": ["a laser gun", "a laser", "a science fiction laser", "a laser blast"],
    "spring": ["a spring bouncing", "a bouncing spring", "a boing", "a metal spring"],
    "hammer": ["a hammer on metal", "a hammer", "hammering on an anvil", "a hammer striking metal"],
    "bicycle_bell": ["a bicycle bell", "a bike bell ringing", "a cyclist's bell", "the bell of a bicycle"],
    "cough": ["a cough", "a person coughing", "someone coughing", "coughing"],
    "camera": ["a camera shutter", "a camera taking a picture", "a camera click", "a photo being taken"],
    "siren": ["a siren wailing", "a siren", "an emergency siren", "a wailing siren"],
    "zipper": ["a zipper", "a zip being closed", "a zipper closing", "someone closing a zipper"],
    "rain": ["rain", "rain falling", "heavy rain", "rainfall", "falling rain"],
    "wind": ["wind", "wind blowing", "a strong wind", "howling wind", "the wind blowing"],
    "waves": ["ocean waves", "waves on a beach", "the sea", "waves breaking on the shore"],
    "stream": ["a babbling brook", "a stream of water", "a flowing stream", "running water"],
    "fire": ["a crackling fire", "a fire", "a fire burning", "a campfire crackling"],
    "traffic": ["traffic", "road traffic", "cars driving past", "a busy road"],
    "engine": ["an engine running", "an engine", "a motor running", "a running motor"],
    "crickets": ["crickets", "crickets chirping", "insects at night", "chirping crickets"],
    "crowd": ["a crowd talking", "a crowd", "many people talking", "the babble of a crowd"],
    "train": ["a train on the tracks", "a train", "a passing train", "a train rattling along"],
    "helicopter": ["a helicopter", "a helicopter flying", "a helicopter overhead", "the blades of a helicopter"],
    "vacuum": ["a vacuum cleaner", "a vacuum cleaner running", "vacuuming", "someone vacuuming"],
    "static": ["radio static", "static", "white noise", "static from a radio"],
    "piano": ["piano music", "a piano", "a piano playing", "someone playing the piano"],
    "guitar": ["guitar music", "a guitar", "a guitar being plucked", "someone playing the guitar"],
    "flute": ["flute music", "a flute", "a flute playing", "someone playing the flute"],
    "drums": ["a drum beat", "drums", "drumming", "someone playing the drums"],
    "organ": ["organ music", "an organ", "an organ playing chords", "a church organ playing"],
    "synthesiser": ["electronic music", "a synthesizer", "techno music", "a synthesizer playing"],
    "strings": ["string music", "violins", "an orchestra of strings", "violins playing"],
    "man": ["a man speaking", "a man talking", "a male voice", "a man's voice", "a male speaker"],
    "woman": ["a woman speaking", "a woman talking", "a female voice", "a woman's voice", "a female speaker"],
}
"""Noun phrases for every kind; the first is the plainest."""

ANSWERS: dict[str, list[str]] = {
    "quiet": ["nothing", "silence", "no background noise", "it is quiet"],
    "no music": ["no music", "there is no music", "no music is playing"],
    "man": ["male", "a man", "a male voice", "the speaker is male", "a man speaking"],
    "woman": ["female", "a woman", "a female voice", "the speaker is female", "a woman speaking"],
    "yes": ["yes", "yes, it is", "yes, there is"],
    "no": ["no", "no, it is not", "no, there is not"],
    "1": ["one", "once", "one time", "1"],
    "2": ["two", "twice", "two times", "2"],
    "3": ["three", "three times", "3"],
    "4": ["four", "four times", "4"],
}
"""Answers that are not the name of a kind."""

_TIMES = {1: ["once", "one time"], 2: ["twice", "two times"], 3: ["three times"], 4: ["four times"]}

Wordings = dict[str, list[str]]

# {a} and {b} are what is heard, in its order, {bg} the background, {n} "twice".
CAPTIONS: dict[str, tuple[list[str], list[str]]] = {
    "alone": (
        ["{a}", "the sound of {a}", "{a} and nothing else", "one can hear {a}", "{a} in a quiet place", "there is {a}"],
        ["a recording of {a}", "{a} can be heard"],
    ),
    "background alone": (
        ["{bg}", "the sound of {bg}", "{bg} and nothing else", "one can hear {bg}", "there is {bg}"],
        ["a recording of {bg}", "{bg} can be heard"],
    ),
    "counted": (
        ["{a} {n}", "{a}, {n}", "{n}, {a}", "the sound of {a}, heard {n}", "one can hear {a} {n}"],
        ["{a} is heard {n}", "a recording of {a}, {n}"],
    ),
    "over": (
        [
            "{a} over {bg}", "{a} with {bg} in the background", "{bg} in the background and {a}", "{a} while there is {bg}",
            "{bg}, with {a}", "{a} against {bg}", "{a} and {bg} behind it", "there is {a}, and {bg} in the background",
            "one can hear {a} over {bg}", "{a}, the background is {bg}", "the sound of {a}, with {bg} behind it",
        ],
        ["in the background {bg}, in front {a}", "{a} can be heard over {bg}", "a recording of {a} with {bg}"],
    ),
    "order": (
        [
            "{a} then {b}", "{a}, then {b}", "{a} followed by {b}", "first {a}, then {b}", "{b} after {a}",
            "{a} before {b}", "{a} and then {b}", "one can hear {a}, then {b}", "{a}; after that {b}",
            "it begins with {a} and ends with {b}", "{a}, afterwards {b}", "at first there is {a}, then {b}",
        ],
        ["at first {a}, afterwards {b}", "{a}, and after it {b}", "a recording of {a} followed by {b}"],
    ),
    "order over": (
        [
            "{a} then {b} over {bg}", "{a} followed by {b}, with {bg} in the background", "first {a}, then {b}, over {bg}",
            "{b} after {a} while there is {bg}", "{bg} in the background, {a}, then {b}", "{a} before {b} against {bg}",
            "one can hear {a}, then {b}, and {bg} behind it", "{bg}, with {a} and then {b}",
            "{a}, afterwards {b}, over {bg}", "at first {a} over {bg}, then {b}", "{bg} behind it, {a} and after it {b}",
        ],
        ["at first {a}, afterwards {b}, in the background {bg}", "{a}, and after it {b}, can be heard over {bg}"],
    ),
    "any": (
        ["a recording with {a}", "{a} somewhere", "anything with {a}", "audio that contains {a}"],
        ["clips with {a}", "something that contains {a}"],
    ),
}  # fmt: skip
"""For training, and for the evaluation alone."""

ASKED: dict[str, tuple[list[str], list[str]]] = {
    "background": (
        [
            QUESTIONS["background"], "What is in the background?", "What can be heard in the background?",
            "What is the background noise?", "Describe the background.", "Which sound is in the background?",
            "What noise goes on behind it?", "What is the ambience?", "What are the surroundings like?",
            "Name the background sound.", "What is heard behind the main sound?", "What kind of background is it?",
            "Where was this recorded, by its background?", "What is going on in the background?", "Background sound?",
            "What background noise is there?", "Describe the ambience.", "Which noise is behind the main sound?",
            "Tell me the background noise.", "What do you hear in the background?",
        ],
        [
            "Which background noise can be heard?", "What sound is going on behind it?", "Describe the background sound.",
            "What is the noise in the background?", "Name the ambience.",
        ],
    ),
    "event": (
        [
            "What is the main sound?", "What happens in this audio?", "Which event is heard?", "What is the main event?",
            "What makes the sound in front?", "Describe the event.", "Name the main sound.", "What sound stands out?",
            "What is in the foreground?", "Which sound is in front?", "What makes this sound?", "What event is this?",
            "What can be heard in the foreground?", "Which sound happens here?", "Describe the main sound.",
            "What is happening?", "Foreground sound?", "Tell me what happens.", "What do you hear in front?",
        ],
        [
            "Which event happens in this audio?", "What is the sound in the foreground?", "Describe what stands out.",
            "Name the event.", "What is the sound in front?",
        ],
    ),
    "music": (
        [
            "What music is playing?", "Which instrument is playing?", "What kind of music is it?", "Describe the music.",
            "Is music playing, and which?", "Which music is in this audio?", "What instrument can be heard?",
            "Name the instrument.", "What music can be heard?", "Music?", "Which music do you hear?",
            "What is the music?", "What kind of music is playing?", "Tell me which instrument is playing.",
            "Describe the instrument.", "What is being played?", "Which kind of music is in the background?",
        ],
        [
            "Which music is playing?", "What kind of music can be heard?", "Name the music.",
            "What instrument is playing in this audio?", "Tell me what music it is.",
        ],
    ),
    "count": (
        [
            "How many times is it heard?", "How often does it happen?", "How many are there?", "How many times?",
            "Count the sounds.", "What is the number of sounds?", "How many times does the sound occur?",
            "How often is it heard?", "How often does the sound occur?", "Count how often it happens.",
            "How many sounds are heard?", "Tell me how many times it happens.", "What is the count?",
            "How many times does it happen in this audio?", "Number of sounds?", "How many times do you hear it?",
            "How often does {a} occur?", "How many times is there {a}?", "Count {a}.",
        ],
        [
            "How often do you hear it?", "Count how many times it is heard.", "How many times does the event happen?",
            "Tell me the number of sounds.", "How often is {a} heard?",
        ],
    ),
    "gender": (
        [
            QUESTIONS["gender"], "Is the speaker a man or a woman?", "Who is speaking, a man or a woman?",
            "What is the speaker's gender?", "Is the voice male or female?", "Male or female?", "Which gender is it?",
            "Is it a man or a woman?", "Describe the speaker's gender.", "What gender does the voice have?",
            "Is a man or a woman talking?", "Is this a male or a female voice?", "Tell me the speaker's gender.",
            "Name the gender of the speaker.", "Who is talking, a man or a woman?", "The gender of the voice?",
            "Do you hear a man or a woman?",
        ],
        [
            "Is a man or a woman speaking?", "What is the gender of the voice?", "Is the speaker male or female?",
            "Tell me the gender of the speaker.", "Which gender does the speaker have?",
        ],
    ),
    "presence": (
        [
            "Is there {a}?", "Can you hear {a}?", "Does it contain {a}?", "Do you hear {a}?", "Is {a} in this audio?",
            "Is {a} heard?", "Does this audio contain {a}?", "Is there {a} in this audio?", "Any {a}?",
            "Tell me if there is {a}.", "Is it true that there is {a}?", "Does one hear {a}?",
            "Is {a} part of this audio?", "Can {a} be heard?",
        ],
        ["Can you hear {a} in this audio?", "Is {a} to be heard?", "Tell me if it contains {a}.", "Does it have {a}?"],
    ),
    "first": (
        [
            "What is heard first?", "Which sound comes first?", "What comes first?", "What does it begin with?",
            "Which sound is at the beginning?", "What is the first sound?", "What do you hear first?",
            "What happens first?", "Which event comes first?", "What is at the beginning?", "Name the first sound.",
            "Which of {a} and {b} comes first?", "What comes first, {a} or {b}?", "Is {a} or {b} heard first?",
        ],
        [
            "Which sound is heard first?", "What sound does it begin with?", "Name the sound at the beginning.",
            "Which is first, {a} or {b}?", "Which sound happens first?",
        ],
    ),
    "last": (
        [
            "What is heard last?", "Which sound comes last?", "What comes last?", "What does it end with?",
            "Which sound is at the end?", "What is the last sound?", "What do you hear last?", "What happens last?",
            "Which event comes last?", "What is at the end?", "Name the last sound.", "What is the second sound?",
            "Which of {a} and {b} comes last?", "What comes last, {a} or {b}?",
        ],
        [
            "Which sound is heard last?", "What sound does it end with?", "Name the sound at the end.",
            "Which is last, {a} or {b}?", "Which sound happens last?",
        ],
    ),
}  # fmt: skip
"""Questions about a clip: for training, and for the evaluation alone."""

_VERBS = (
    "Represent",
    "Embed",
    "Encode",
    "Describe",
    "Compare",
    "Match",
    "Find",
    "Judge",
    "Retrieve",
    "Attend to",
    "Index",
)
_ABOUT = {
    "background": ["the background", "the background noise", "the background sound", "the ambience", "the sound behind it"],
    "event": ["the main sound", "the event", "the foreground", "the main event", "the sound in front"],
    "music": ["the music", "the instrument", "the kind of music", "the music that is playing", "which music it is"],
    "count": ["the number of sounds", "the count", "how many times it happens", "how often it is heard", "the number of events"],
    "gender": ["the speaker's gender", "the gender of the speaker", "the voice's gender", "the gender of the voice", "male or female voice"],
}  # fmt: skip
_STEERED = (
    "{v} the audio by {x}.", "{v} only {x}.", "{v} {x} of the audio.", "{v} recordings by {x}.", "{v} audio according to {x}.",
    "{v} {x}.", "{v} this audio by {x}.", "{x}: that is what matters.", "{v} clips by {x}.", "{v} audio with respect to {x}.",
)  # fmt: skip


def _steering() -> dict[str, tuple[list[str], list[str]]]:
    """Instructions for each aspect; every seventh combination of its parts is held out."""
    found = {}
    for aspect, subjects in _ABOUT.items():
        texts = []
        for v in _VERBS:
            for x in subjects:
                for pattern in _STEERED:
                    text = pattern.format(v=v, x=x)
                    text = text[0].upper() + text[1:]
                    if text not in texts:
                        texts.append(text)
        random.Random(aspect).shuffle(texts)
        held = texts[::7]
        found[aspect] = ([text for text in texts if text not in held], held)
    return found


STEERING = _steering()
"""Instructions by which a clip without a question is embedded for one aspect: for training, for the evaluation."""

QUERY_INSTRUCTIONS = [
    QUERY_INSTRUCTION, "Retrieve the matching document.", "Find what matches the query.", "Find audio that matches the text.",
    "Given a query, retrieve what it describes.", "Retrieve the caption of this audio.", "Search.",
]  # fmt: skip
"""Instructions that steer nothing, for queries; the first is the published one and by far the most frequent."""

DOCUMENT_INSTRUCTIONS = [
    DOC_INSTRUCTION,
    "Represent the document.",
    "Embed this for retrieval.",
    "Represent the content.",
]
"""The same, for documents."""

TRAIN, EVAL = 0, 1


def spelled(text: str, rng: random.Random) -> str:
    """In one of the ways that people write: with a capital and a full stop, or without."""
    text = text[0].upper() + text[1:] if rng.random() < 0.5 else text[0].lower() + text[1:]
    if rng.random() < 0.3:
        return text.rstrip(".?")
    return text if text[-1] in ".?" or rng.random() < 0.6 else text + "."


def name(kind: str, rng: random.Random) -> str:
    """One of a kind's names; the plainest most often."""
    return NAMES[kind][0] if rng.random() < 0.3 else rng.choice(NAMES[kind])


def answer(meaning: str, rng: random.Random) -> str:
    """One of the texts that mean an answer: a kind, a number, yes, no."""
    texts = ANSWERS.get(meaning) or NAMES[meaning]
    return rng.choice(texts)


def times(count: int, rng: random.Random) -> str:
    """How often, in words."""
    return rng.choice(_TIMES[count])


def every_text() -> Sequence[str]:
    """Every training wording once or more; what the tokenizer learns its merges from."""
    rng = random.Random(0)
    texts = [*QUERY_INSTRUCTIONS, *DOCUMENT_INSTRUCTIONS]
    kinds = sorted(NAMES)
    for patterns, _ in [*CAPTIONS.values(), *ASKED.values(), *STEERING.values()]:
        for pattern in patterns:
            for _ in range(6):
                names = {key: name(rng.choice(kinds), rng) for key in ("a", "b", "bg")}
                texts.append(spelled(pattern.format(**names, n=times(rng.randint(1, 4), rng)), rng))
    texts += [text for meanings in (*NAMES.values(), *ANSWERS.values()) for text in meanings]
    return texts

"""Further wordings of what the worlds ask, for training alone; {fields} are those of the item.

An item brings a handful of wordings, of which one or two are kept for the test (world.py). Who has read two or three ways to ask
answers the fourth one badly: of facts that nano knew it got 39 % right in new words (LOG.md). Here are more, by the first wording of an
item. None of them is among an item's own, so a test asks what it always asked.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["further"]


def further(wordings: Sequence[str]) -> tuple[str, ...]:
    """The wordings there are beside those of an item, known by its first one; none where nobody wrote any."""
    return _FURTHER.get(wordings[0], ())


_FURTHER: dict[str, tuple[str, ...]] = {
    # ------------------------------------------------------------------------------------------------- text and drills
    "What is {a} {name} {b}?": (
        "{a} {name} {b} is what?", "What do you get for {a} {name} {b}?", "Can you work out {a} {name} {b}?", "What does {a} {name} {b} make?", "Give me {a} {name} {b}.",
        "What is the result of {a} {name} {b}?", "Please calculate {a} {name} {b}.", "{a} {name} {b} makes how much?", "Do you know what {a} {name} {b} is?",
    ),
    "Which is {word}, {a} or {b}?": (
        "What is {word}: {a} or {b}?", "Which one is {word}, {a} or {b}?", "{a} or {b}: which is {word}?", "Tell me which is {word}, {a} or {b}.", "Which of {a} and {b} is {word}?",
        "Is it {a} or {b} that is {word}?", "Name the {word} one of {a} and {b}.", "{a} and {b}: which number is {word}?", "Which is the {word} number, {a} or {b}?",
    ),
    "Spell {word} {how}.": (
        "Say the letters of {word} {how}.", "Can you spell {word} {how}?", "How is {word} spelt {how}?", "{word} {how}, letter by letter.", "Tell me how to spell {word} {how}.",
        "Give me the letters of {word} {how}.", "Which letters has {word} {how}?", "Now spell {word} {how}, please.",
    ),
    "Spell {word}.": (
        "Say the letters of {word}.", "Can you spell {word}?", "How is {word} spelt?", "{word}, letter by letter.", "Tell me how to spell {word}.", "Give me the letters of {word}.",
        "Which letters has {word}?", "Now spell {word}, please.", "How do we write {word}?",
    ),
    "What is the {nth} letter of {word}?": ("Say the {nth} letter of {word}.", "Give me the {nth} letter of {word}.", "{word}: what is the {nth} letter?", "Which is the {nth} letter of {word}?", "The {nth} letter of {word} is which one?"),
    "Count from {a} to {b}.": (
        "{a} to {b}, please count.", "Count up or down from {a} to {b}.", "Tell me the numbers from {a} to {b}.", "Start at {a} and count to {b}.", "Which numbers are there from {a} to {b}?",
        "Begin with {a} and go on to {b}.", "Name all numbers from {a} to {b}.", "I want to hear the numbers from {a} to {b}.", "Count for me, from {a} to {b}.",
    ),
    "What is the capital of {country}?": (
        "Which is the capital of {country}?", "What city is the capital of {country}?", "Do you know the capital of {country}?", "{country}: what is its capital?", "The capital of {country} is which city?",
        "Say the capital of {country}.", "What is the name of the capital of {country}?", "Which capital does {country} have?", "Give me the capital of {country}.",
    ),
    "{city} is the capital of which country?": (
        "Of which country is {city} the capital?", "Tell me the country with the capital {city}.", "{city}: the capital of which country?", "Whose capital is {city}?", "Name the country whose capital is {city}.",
        "{city} is the capital of what country?", "Which country is {city} the capital of?", "Do you know the country whose capital is {city}?",
    ),
    "Which {kind} comes {word} {here}?": (
        "{word} {here} comes which {kind}?", "Which {kind} is {word} {here}?", "What {kind} comes {word} {here}?", "Tell me which {kind} is {word} {here}.", "Say the {kind} {word} {here}.", "The {kind} {word} {here} is which one?",
        "Give me the {kind} {word} {here}.", "Do you know the {kind} {word} {here}?", "What is the {kind} {word} {here}?",
    ),
    "What is the {what} of {who}?": (
        "Say the {what} of {who}.", "Give me the {what} of {who}.", "Can you tell me the {what} of {who}?", "{who} has which {what}?", "What {what} has {who}?", "I want to know the {what} of {who}.", "Name the {what} of {who}.",
    ),
    "What time is it {hours} {many} {word} {hour} o'clock?": (
        "What is the time {hours} {many} {word} {hour} o'clock?", "{hours} {many} {word} {hour} o'clock: what time is it?", "Which hour is {hours} {many} {word} {hour} o'clock?",
        "Say the time {hours} {many} {word} {hour} o'clock.", "What o'clock is it {hours} {many} {word} {hour} o'clock?", "Give me the time {hours} {many} {word} {hour} o'clock.", "Do you know the time {hours} {many} {word} {hour} o'clock?",
    ),
    "What colour is {what}?": (
        "What is the colour of {what}?", "Which is the colour of {what}?", "Do you know the colour of {what}?", "{what}: which colour is it?", "The colour of {what} is what?", "Name the colour of {what}.", "{what} is of which colour?",
        "What colour does {what} have?", "Say which colour {what} has.",
    ),
    "How many legs does {what} have?": (
        "What is the number of legs of {what}?", "{what} has how many legs?", "Count the legs of {what}.", "Do you know how many legs {what} has?", "Say how many legs {what} has.", "The legs of {what}: how many are there?",
        "On how many legs does {what} walk?", "Give me the number of legs of {what}.",
    ),
    "What does a {what} do when it makes a sound?": (
        "What does the {what} do?", "Which sound comes from the {what}?", "How does the {what} sound?", "What sound has the {what}?", "Say what the {what} does when it makes a sound.", "What noise does the {what} make?",
        "Name the sound of the {what}.", "The {what} makes which sound?",
    ),
    "What is a young {what} called?": (
        "What is the young of a {what} called?", "What is the name of a young {what}?", "The child of a {what} is called what?", "Tell me what a young {what} is called.", "A young {what} is called what?", "Which name has a young {what}?",
        "What do we call the child of a {what}?", "A {what} has a child. What is it called?", "Say the name of a young {what}.",
    ),
    "What is the opposite of {what}?": (
        "What is not {what}, but the opposite?", "Which is the opposite of {what}?", "Name the opposite of {what}.", "The opposite of {what} is what?", "Say the opposite of {what}.", "{what}: what is the opposite?", "Do you know the opposite of {what}?",
        "Give me the opposite of {what}.", "Which word says the opposite of {what}?",
    ),
    "What is my name?": ("Say my name.", "Which name do I have?", "How am I called?", "Do you know my name?", "What am I called?", "Which is my name?", "And my name is?"),
    "Where do I live?": ("Do you remember where I live?", "Which place is my home?", "Where am I at home?", "Name the city where I live.", "Tell me where I live.", "What is the city where I live?", "In which city is my home?"),
    "How many {thing}s do I have?": (
        "How many {thing}s have I?", "Tell me how many {thing}s I have.", "Say the number of {thing}s that I have.", "How many {thing}s did I say?", "What number of {thing}s do I have?", "I have how many {thing}s?", "My {thing}s, how many are there?",
    ),
    # -------------------------------------------------------------------------------------------------------- pictures
    "What colour is the {shape}?": (
        "What is the colour of the {shape}?", "The {shape}: which colour is it?", "Name the colour of the {shape}.", "What colour has the {shape}?", "Say which colour the {shape} is.", "In which colour is the {shape}?",
        "Look at the {shape}. What colour is it?", "Do you see the colour of the {shape}?", "The colour of the {shape} is what?", "Which colour is the {shape}?",
    ),
    "What is the {colour} shape?": (
        "What shape is {colour}?", "Tell me which shape is {colour}.", "The {colour} shape is what?", "The shape that is {colour}: what is it?", "Say what the {colour} shape is.", "Which one is the {colour} shape?", "What shape do you see in {colour}?",
    ),
    "How many {plural} are there?": (
        "What number of {plural} do you see?", "Tell me how many {plural} there are.", "How many {plural} does the picture show?", "Are there any {plural}, and how many?", "{plural}: how many of them?", "How many {plural} can you see?",
        "Say how many {plural} you see.", "Please count the {plural}.", "How many {plural} can you count?", "Give me the number of {plural}.",
    ),
    "Is the {one} {word} the {other}?": (
        "Tell me if the {one} is {word} the {other}.", "Is it true that the {one} is {word} the {other}?", "The {one}: is it {word} the {other}?", "Look at the {one}. Is it {word} the {other}?", "Can you see the {one} {word} the {other}?",
        "Yes or no, is the {one} seen {word} the {other}?", "The {one} is {word} the {other}. Is that right?", "Would you say that the {one} is {word} the {other}?",
    ),
    "What is {word} the {other}?": (
        "What can you see {word} the {other}?", "Look {word} the {other}. What is there?", "Tell me what is {word} the {other}.", "What stands {word} the {other}?", "{word} the {other}, what is there?", "Say what is {word} the {other}.", "What is there {word} the {other}?",
    ),
    "Describe the picture.": (
        "Describe what you see.", "What can be seen here, from left to right?", "What is in the picture, from left to right?", "Tell me what you see from left to right.", "Name all that you see.", "Which shapes are in the picture?", "Say what the picture shows.",
    ),
    "Which number is written here?": (
        "What is the number?", "Tell me the number.", "What number is in the picture?", "Which number do you see?", "Which number is shown?", "What number is this?", "Say which number you read.", "Read what is written.", "What digits do you see?",
    ),
    "What is this?": (
        "What can you see?", "What is shown here?", "Tell me what you see.", "Which thing is this?", "Say what this is.", "What thing is in the picture?", "What is it?", "Name what you see.", "Which thing does the picture show?", "What is there to see?",
    ),
    "Which things do you see, from left to right?": (
        "Describe what you see.", "What can be seen here?", "Tell me what is in the picture.", "Which things are there?", "What things do you see?", "Say what you see, from left to right.", "Name the things from left to right.",
    ),
    "Is there {a} in the picture?": ("Does the picture have {a}?", "Tell me if you see {a}.", "Is {a} to be seen?", "Look for {a}. Is there one?", "Is {a} there?", "Can you find {a}?", "Do you see {a} anywhere?"),
    "What colour is behind the {name}?": (
        "What is the colour behind the {name}?", "The card of the {name} has which colour?", "On which colour is the {name}?", "What colour is the card of the {name}?", "Tell me the colour behind the {name}.", "What colour is under the {name}?",
    ),
    # --------------------------------------------------------------------------------------------------------- sounds
    "What do you hear?": (
        "What sound is this?", "Say what you hear.", "What is to be heard?", "What was that sound?", "Which sound do you hear?", "Which noise is this?", "What can you hear?", "Name what you hear.", "What sound do you hear?", "Listen. What is it?",
    ),
    "How many {plural} do you hear?": (
        "Tell me how many {plural} you hear.", "What number of {plural} do you hear?", "How many {plural} were there?", "How many {plural} can you hear?", "Please count the {plural}.", "Listen and count the {plural}.", "How many times do you hear {a}?", "{plural}: how many?",
    ),
    "Does the pitch rise or fall?": (
        "Is the pitch rising or falling?", "Does the tone rise or fall?", "Which way does the tone go, up or down?", "Tell me if the pitch rises or falls.", "Do you hear it rise or fall?", "The pitch: does it go up or down?", "Is the tone going up or down?",
    ),
    "Is the second tone higher or lower than the first?": (
        "Which is it, is the second tone higher or lower?", "Of two tones, is the second higher or lower?", "Tell me if the second tone is higher or lower.", "Is the tone at the end higher or lower than the first?", "Higher or lower: the second tone?",
    ),
    "Which comes {word}, the {one} or the {other}?": (
        "Which do you hear {word}, the {one} or the {other}?", "The {one} or the {other}: which comes {word}?", "What comes {word}, the {one} or the {other}?", "Tell me which is {word}, the {one} or the {other}.", "The {one} and the {other}: which is heard {word}?",
    ),
    "Which sounds do you hear, in order?": ("Name the sounds in order.", "Tell me what you hear, in order.", "What do you hear, one after another?", "Say which sounds there are.", "What sounds do you hear?"),
    "Which {name} is louder, the first or the second?": ("Is the first {name} louder or the second?", "The first or the second {name}: which is louder?", "Which of both is the louder {name}?", "Say which {name} is louder."),
    "Which tone is longer, the first or the second?": ("The first or the second tone: which is longer?", "Tell me which tone is longer.", "Which of both tones is longer?", "Is the first tone longer or the second?"),
    "Do you hear {a}?": ("Tell me if you hear {a}.", "Is {a} to be heard?", "Listen for {a}. Is there one?", "Can {a} be heard?", "Does the recording have {a}?"),
    # --------------------------------------------------------------------------------------------------------- videos
    "Which way does the {shape} move?": (
        "What way does the {shape} go?", "The {shape}: which way does it go?", "Say where the {shape} moves.", "Where does the {shape} move?", "Tell me in which direction the {shape} moves.", "Which direction does the {shape} take?", "Which way is the {shape} going?",
    ),
    "Which shape appears {word}?": (
        "Which one appears {word}?", "Tell me which shape appears {word}.", "Which of them is {word} to appear?", "What comes {word}?", "The shape that appears {word} is which?", "Say what appears {word}.", "Which shape comes {word}?",
    ),
    "Which shape appears or vanishes?": ("Tell me what changes.", "Which shape comes or goes?", "Say what happens.", "What is it that changes?", "Which one appears or vanishes?", "What can be seen to change?"),
    "How often does the ball bounce?": ("How many bounces do you see?", "Tell me how often the ball bounces.", "How often does the ball hit the ground?", "The ball bounces how often?", "Say how many times the ball bounces.", "What is the number of bounces?"),
    "Which colour does the {shape} become?": ("What does the colour of the {shape} become?", "The {shape} becomes which colour?", "What colour has the {shape} at the end?", "Tell me which colour the {shape} becomes.", "Into which colour does the {shape} change?"),
    "Which colour was the {shape} at first?": ("The {shape} had which colour at first?", "What colour was the {shape} before?", "Tell me which colour the {shape} was at first.", "What colour did the {shape} begin with?", "At the beginning, which colour has the {shape}?"),
    "Which shape is faster?": ("Which of both is faster?", "Tell me which shape is faster.", "What shape moves faster?", "Say which one is faster.", "The faster shape is which one?", "Which shape moves faster?"),
    "Does the {shape} grow or shrink?": ("The {shape}: does it grow or shrink?", "Tell me if the {shape} grows or shrinks.", "Is the {shape} becoming larger or smaller?", "What does the {shape} do, grow or shrink?", "Does the {shape} get larger or smaller?"),
    # ------------------------------------------------------------------------------------------------ sound with video
    "Which shape makes the sound?": ("Which shape made the noise?", "Which one makes the sound?", "From which shape does the sound come?", "Tell me which shape you hear.", "What shape makes the noise?", "Who makes the sound?", "Whose sound is it?"),
    "Which sound comes with the hit, the {one} or the {other}?": (
        "The {one} or the {other}: which comes with the hit?", "What comes with the hit, the {one} or the {other}?", "When the ball hits the wall, do you hear the {one} or the {other}?", "Tell me which comes with the hit, the {one} or the {other}.",
    ),
    "Does {a} sound when the ball hits the wall?": ("Do you hear {a} with the hit?", "Is the sound heard with the hit?", "Do hit and sound come at the same time?", "Tell me if the sound comes with the hit.", "Is it with the hit that you hear {a}?"),
    "Does the {noise} come before or after the hit?": (
        "Is the {noise} before or after the hit?", "Tell me if the {noise} comes before or after the hit.", "Before or after the hit: when comes the {noise}?", "Is the {noise} heard before the hit or after it?", "The hit and the {noise}: is the sound before or after?",
    ),
}  # fmt: skip

"""What users say in `duplex_cases` beside the held-out questions."""

BEGINNINGS: tuple[tuple[str, str], ...] = (  # of a question that goes on after a pause
    ("Could you tell me", "if you happen to know"),
    ("I have been wondering", "since this morning, actually"),
    ("So what I want to know is", "let me think how to put it"),
    ("My daughter asked me, and I could not answer,", "so I thought I would ask you"),
    ("There is one thing I never understood, and that is", "well"),
    ("Do you think you could explain", "in a few words"),
    ("I was reading a book last night, and then I thought", "hmm"),
    ("The other day somebody at work asked", "I think it was on Monday"),
    ("Before I forget, I wanted to ask you", "wait, what was it"),
    ("I am not sure how to say this, but", "just out of interest"),
    ("Next question, and this one is", "a little strange, maybe"),
    ("If it is not too much trouble, please tell me", "as simply as you can"),
)

STORIES: tuple[tuple[str, ...], ...] = (  # a telling that asks for nothing, a sentence at a time
    (
        "Yesterday I took the early train to see my sister.",
        "It was so full that I had to stand for an hour next to the door.",
        "A man with a very large dog got in at the second stop, and the dog sat down on my feet.",
        "When I arrived, my shoes were covered in white hair.",
    ),
    (
        "We moved into the new house about three weeks ago.",
        "The kitchen is not finished, so we cook on a small stove in the hall.",
        "On the first evening the lights went out while I was making soup.",
        "We ate it in the dark, and it was better than I expected.",
    ),
    (
        "My grandfather used to repair clocks in a little shop by the river.",
        "He had hundreds of them on the walls, and each of them showed another time.",
        "At noon they rang one after the other for almost a quarter of an hour.",
        "He said that he liked it that way, because nobody could tell him that he was late.",
    ),
    (
        "Last summer we tried to grow tomatoes on the balcony.",
        "For weeks nothing happened, and then there were leaves everywhere.",
        "The neighbours below us complained that they had no sun any more.",
        "In the end we gave them half of what we picked.",
    ),
    (
        "I started to learn the violin when I was forty.",
        "For the first year it sounded like a door that needs oil.",
        "My cat left the room as soon as I opened the case.",
        "Now she stays until the second song, which I think is progress.",
    ),
    (
        "On Saturday I wanted to bake a cake for my friend's birthday.",
        "I had the flour and the eggs on the table before I saw that there was no sugar.",
        "The shop was closed, so I used honey from the back of the cupboard.",
        "Everybody asked me for the recipe, and I did not know what to tell them.",
    ),
    (
        "There is an old bridge near the place where I work.",
        "Every morning a heron stands under it and waits for fish.",
        "It never moves when people walk past, not even when children shout.",
        "Last week it was not there, and I worried about it all day.",
    ),
    (
        "I lost my phone in the mountains two years ago.",
        "We had climbed for five hours, and I only noticed it at the top.",
        "A woman found it the next spring when the snow was gone.",
        "It still worked, and she sent me a picture of herself with it.",
    ),
    (
        "My first job was in a cinema in the town where I grew up.",
        "I sold tickets, and when everybody was inside I swept the stairs.",
        "I have seen the last ten minutes of more than two hundred films.",
        "Of most of them I still do not know how they begin.",
    ),
    (
        "When it rains very hard, the street in front of our school turns into a river.",
        "Once the teacher carried three of us across on his back.",
        "He slipped on the last step, and we all fell into the water together.",
        "He laughed so much that he could not get up for a while.",
    ),
    (
        "My neighbour builds small boats in his garage.",
        "He has made nine of them, and not one has ever been on the water.",
        "He says that the building is what he likes, and that water only spoils the paint.",
        "I asked him whether I could borrow one, and he thought about it for a long time.",
    ),
    (
        "We drove through the night to see the sun come up over the sea.",
        "Around four in the morning the fog became so thick that we had to stop.",
        "We sat in the car and drank cold coffee until it was light.",
        "When the fog lifted, we saw that we had parked in front of a wall.",
    ),
)

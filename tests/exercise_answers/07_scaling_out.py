"""Answers to the exercises of notebook 07: wrong ones with words of their hint, and right ones."""

WEIGHTED = "return sum(g * c for g, c in zip(gradients, counts)) / sum(counts)"
SHARE = """\
batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
return [batch[rank::ranks] for batch in batches]
"""
MOST = """\
best = 1
for n in range(1, 1025):
    work, exchange = batch / rate, 2 * (n - 1) / n * gradient_bytes / link
    if work / (work + exchange) >= share:
        best = n
return best
"""
BUFFER = """\
held = []
for item in stream:
    held.append(item)
    if len(held) >= size:
        yield held.pop(rng.randrange(len(held)))
rng.shuffle(held)
yield from held
"""

WRONG = {
    1: [
        ("return sum(gradients) / len(gradients)", "does each image count the same?"),
        ("return sum(gradients)", "a sum is not a mean"),
        (WEIGHTED.replace(" / sum(counts)", ""), "does each image count the same?"),
        ("return gradients[0]", "does each image count the same?"),
        ("return torch.stack(gradients).mean()", "the gradients' shape"),
    ],
    2: [
        ("return [order[rank::ranks]]", "and one process makes 3"),
        (
            "mine = order[rank::ranks]\n"
            "return [mine[s : s + batch_size] for s in range(0, len(mine), batch_size)]",
            "and one process makes 3",
        ),
        (
            SHARE.replace("batch[rank::ranks]", "batch[: len(batch) // ranks]"),
            "is seen 2 times",
        ),
        (
            SHARE.replace(
                "batch[rank::ranks]",
                "batch[rank * (len(batch) // ranks) : (rank + 1) * (len(batch) // ranks)]",
            ),
            "are seen by no rank",
        ),
        (
            SHARE.replace("return [batch[rank::ranks] for batch in batches]", "")
            + "return batches[rank::ranks]",
            "one rank waits for ever",
        ),
        (SHARE.replace("batch[rank::ranks] for", "batch for"), "is seen 2 times"),
        (
            SHARE.replace("batch[rank::ranks]", "batch if rank == 0 else []"),
            "the parts have [4, 0]",
        ),
    ],
    3: [
        (MOST.replace("/ link", "* link"), "divided by the link's speed"),
        (MOST.replace("2 * (n - 1) / n * ", "2 * (n - 1) * "), "you say"),
        (MOST.replace("2 * (n - 1) / n * ", "(n - 1) / n * "), "and 2 is right"),
        (MOST.replace("best = n", "return n"), "you say 1"),
        (MOST.replace("best = n", "pass"), "you say 1"),
    ],
    4: [
        (
            "held = list(stream)\nrng.shuffle(held)\nyield from held",
            "reads all of a stream",
        ),
        (BUFFER.replace("rng.shuffle(held)\nyield from held\n", ""), "where are those held"),
        (BUFFER.replace("rng.shuffle(held)\n", ""), "come out sorted"),
        (BUFFER.replace("rng.randrange(len(held))", "0"), "drawn at random?"),
        (BUFFER.replace("rng.randrange(len(held))", "-1"), "drawn at random?"),
        (
            BUFFER.replace(
                "yield held.pop(rng.randrange(len(held)))",
                "rng.shuffle(held)\n        yield from held\n        held = []",
            ),
            "no item waits long",
        ),
        (
            BUFFER.replace("rng.randrange(len(held))", "random.randrange(len(held))"),
            "draw from `rng` only",
        ),
    ],
}

RIGHT = {
    1: [
        WEIGHTED,
        "w = torch.tensor(counts, dtype=torch.float32) / sum(counts)\n"
        "return torch.einsum('r,r...->...', w, torch.stack(gradients))",
    ],
    2: [
        "steps = -(-len(order) // batch_size)\n"
        "chunks = [order[s * batch_size : (s + 1) * batch_size] for s in range(steps)]\n"
        "return [[x for i, x in enumerate(c) if i % ranks == rank] for c in chunks]",
    ],
    3: [
        "work = batch / rate\n"
        "if share == 1:\n    return 1\n"
        "room = work * (1 / share - 1) * link / (2 * gradient_bytes)\n"
        "return 1024 if room >= 1 else min(1024, int(1 / (1 - room) + 1e-9))",
    ],
    4: [
        "held = []\n"
        "for item in stream:\n"
        "    if len(held) < size:\n"
        "        held.append(item)\n"
        "        continue\n"
        "    place = rng.randrange(size)\n"
        "    yield held[place]\n"
        "    held[place] = item\n"
        "rng.shuffle(held)\n"
        "yield from held",
    ],
}

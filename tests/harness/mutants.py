"""Files that are damaged as disks and connections damage them."""


def mutants(sound, count, chance):
    """`count` times one of the `sound` files with bits turned, cut short, or with a piece of another one in it."""
    for _ in range(count):
        content, other = bytearray(sound[chance.integers(len(sound))]), sound[chance.integers(len(sound))]
        way, place = chance.integers(3), chance.integers(len(content))
        if way == 0:
            for byte in chance.integers(len(content), size=chance.integers(1, 9)):
                content[byte] ^= 1 << int(chance.integers(8))
        elif way == 1:
            del content[place:]
        else:
            start, end = sorted(chance.integers(len(other), size=2))
            content[place : place + end - start] = other[start:end]
        yield bytes(content)


def damages(whole, draws, chance):
    """`draws` copies of a file's content: of half of them the end is missing, in the others one bit is turned."""
    for draw in range(draws):
        damaged, at = bytearray(whole), chance.randrange(len(whole))
        if draw % 2:
            damaged[at] ^= 1 << chance.randrange(8)
        else:
            del damaged[at:]
        yield bytes(damaged)

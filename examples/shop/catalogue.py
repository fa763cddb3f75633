"""The names of the things for sale: the same for every run, shared by the seed and the clients."""

from __future__ import annotations

from random import Random

BRANDS = (
    "Alder", "Birchwood", "Brightwater", "Cobalt", "Copperfield", "Drift", "Eastgate", "Fernhill",
    "Glenmore", "Harbour", "Ironbridge", "Juniper", "Kestrel", "Larkspur", "Meridian", "Northwind",
    "Oakham", "Pinecrest", "Quarry", "Redfern", "Saltmarsh", "Thornbury", "Umber", "Vale", "Wren",
)  # fmt: skip
QUALITIES = (
    "Classic", "Compact", "Everyday", "Folding", "Heavy", "Large", "Light", "Narrow", "Premium",
    "Quiet", "Round", "Slim", "Small", "Sturdy", "Travel", "Wide",
)  # fmt: skip
MATERIALS = (
    "Ash", "Bamboo", "Brass", "Canvas", "Ceramic", "Cork", "Cotton", "Felt", "Glass", "Leather",
    "Linen", "Oak", "Steel", "Walnut", "Wool",
)  # fmt: skip
THINGS = (
    "Apron", "Backpack", "Basket", "Bench", "Blanket", "Bookend", "Bottle", "Bowl", "Box", "Chair",
    "Clock", "Coaster", "Cushion", "Desk", "Frame", "Hook", "Jar", "Kettle", "Lamp", "Mirror",
    "Mug", "Notebook", "Plate", "Planter", "Rug", "Shelf", "Stool", "Table", "Tray", "Vase",
)  # fmt: skip

# One product in a hundred is nearly gone, so that a few orders meet an empty shelf.
SCARCE_ONE_IN = 100


def product_name(random: Random) -> tuple[str, str]:
    """A full name, and the kind of thing it is."""
    thing = random.choice(THINGS)
    words = (random.choice(BRANDS), random.choice(QUALITIES), random.choice(MATERIALS), thing)
    return " ".join(words), thing


def search_prefix(random: Random) -> str:
    """What somebody types into the search box: a brand and the start of a quality."""
    quality = random.choice(QUALITIES)
    return f"{random.choice(BRANDS)} {quality[: random.randint(1, len(quality))]}"


def delivered_units(random: Random) -> int:
    """How many pieces of one product the shop received."""
    if random.randrange(SCARCE_ONE_IN) == 0:
        return random.randint(0, 3)
    return random.randint(50, 500)

"""The words that are written on plates. Each is of one split, by the word alone, as items are by their identity."""

from onethinker_jax.data_pipeline.photos.library import Split, split_of

# fmt: off
WORDS = (
    "AIRPORT", "APRIL", "BAKERY", "BANK", "BEACH", "BICYCLES", "BOATS", "BOOKS", "BREAD", "BRIDGE", "BUS", "BUTTER",
    "CAFE", "CAMPING", "CASTLE", "CENTRE", "CHEESE", "CINEMA", "CLOSED", "COFFEE", "DANGER", "DENTIST", "DOCTOR",
    "EAST", "ENTRANCE", "EXIT", "FARM", "FERRY", "FIRE", "FISH", "FLOWERS", "FOREST", "FRIDAY", "FRUIT", "GARAGE",
    "GARDEN", "GATE", "GLASS", "GOLD", "HARBOUR", "HELP", "HILL", "HONEY", "HOSPITAL", "HOTEL", "ICE", "ISLAND",
    "JUNE", "KEYS", "KITCHEN", "LAKE", "LIBRARY", "LIFT", "LUNCH", "MARKET", "MILK", "MONDAY", "MUSEUM", "MUSIC",
    "NORTH", "NOTICE", "OFFICE", "OPEN", "PAPER", "PARK", "PARKING", "PEACE", "PIANO", "PIZZA", "PLATFORM",
    "POLICE", "POOL", "POST", "PRIVATE", "PULL", "PUSH", "QUIET", "RADIO", "RICE", "RIVER", "ROAD", "SALE",
    "SCHOOL", "SHOES", "SHOP", "SILENCE", "SLOW", "SNOW", "SOUP", "SOUTH", "STATION", "STOP", "STREET", "SUGAR",
    "SUNDAY", "TAXI", "TEA", "THEATRE", "TICKETS", "TOOLS", "TOURS", "TOWER", "TRAINS", "TUNNEL", "VALLEY", "WAIT",
    "WATER", "WEST", "WINE", "WINTER", "WOOD", "ZOO",
)
# fmt: on


def words_of(split: Split) -> tuple[str, ...]:
    """The words of a split."""
    return tuple(word for word in WORDS if split_of(f"the word {word}") == split)

"""The words that simulated names are made of."""

from __future__ import annotations


def _list(text: str) -> tuple[str, ...]:
    """Comma-separated words; a line break is a blank."""
    return tuple(word.strip() for word in text.replace("\n", " ").split(","))


PAYMENT_CATEGORIES = _list("""
groceries, restaurants, coffee, fuel, pharmacy, clothing, electronics, transport, parking, taxi,
cinema, streaming, gym, books, toys, furniture, garden, pets, hairdresser, dentist, optician,
insurance, phone, internet, electricity, water, gifts, jewellery, sports, hotel, airline, rail,
bakery, butcher, takeaway, bar, charity, courier, stationery, hardware
""")
SHOP_FIRST = _list("""
North, South, East, West, Royal, Golden, Silver, Green, Blue, Red, Old, New, Grand, Little,
Corner, Market, Central, Union, Star, Sunny, Happy, Fresh, Prime, Metro, City, Park, River, Hill,
Lake, Bridge
""")
SHOP_SECOND = _list("House, Store, Place, Shop, & Co, Point, Express, Direct, Online, Brothers")
TOWNS = _list("""
London, Leeds, York, Bath, Derby, Bristol, Oxford, Dover, Hull, Exeter, Truro, Ely, Luton, Ripon,
Wells, Stoke, Poole, Crewe, Corby, Rugby
""")
CHANNELS = _list("card, contactless, online, mobile, telephone, transfer")

GOODS = _list("""
mug, tea towel, cushion, candle, lantern, photo frame, lunch box, cake stand, jug, door mat,
clock, plate set, apron, tray, wall art, garland, bunting, notebook, gift bag, wrapping paper,
keyring, umbrella, shopping bag, hand warmer, hot water bottle, alarm clock, egg cups, cookie jar,
storage tin, fairy lights
""")
COLLECTIONS = _list("""
vintage roses, red spotty, retro space, paisley park, woodland, london bus, strawberry,
blue stars, parisienne, french garden, skull, circus parade, dolly girl, jumbo leaf, pantry,
regency, polka dot, heart of wicker, alphabet, botanical, black forest, feather, swallows,
birdsong, mirrored, colour glass, zinc, ivory, scandinavian, botanic ink, seaside, owl, toadstool,
folk art, gingham, enamel, rustic, mini lights
""")
LATE_COLLECTIONS = _list("aurora, terrazzo")
SIZES = _list("small, large, set of 6")
COUNTRIES = _list("""
United Kingdom, Germany, France, EIRE, Spain, Netherlands, Belgium, Switzerland, Portugal,
Australia, Norway, Italy
""")


def numbered(words: tuple[str, ...], count: int) -> list[str]:
    """As many different names as wanted: the words, then each with a 2, a 3, and so on.

    Example:
        >>> numbered(("mug", "jug"), 3)
        ['mug', 'jug', 'mug 2']
    """
    rounds = [divmod(i, len(words)) for i in range(count)]
    return [words[k] + (f" {again + 1}" if again else "") for again, k in rounds]

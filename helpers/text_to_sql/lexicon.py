"""The words that carry meaning: subjects, columns whose type and adjectives a person expects, and values.

Names that carry none (any noun, any invented word) come from `names.py`. Everything here is known to training;
what must be *copied* rather than known is drawn there.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Concept:
    """A kind of column: its SQL type, the range of its numbers, and how people compare by it."""

    type: str
    low: float = 0
    high: float = 100
    more: tuple[str, ...] = ()  # "older than": adjective phrase for >
    less: tuple[str, ...] = ()
    most: tuple[str, ...] = ()  # "oldest": superlative for ORDER BY ... DESC
    least: tuple[str, ...] = ()
    post: tuple[str, ...] = ()  # "from {v}": how a text value follows the noun
    values: str = "any"  # which pool a text value comes from
    counted: bool = False  # "more than 5 goals" is said of it


SUBJECTS = """
ship player book car employee student city movie song hotel product team dog cat house farm flight train bridge
restaurant museum doctor patient school store customer artist game mountain river actor airline airport album animal
apartment author award band bank battle beach bike bird boat building bus camera camp castle chef church client club
coach college company competitor conference contest country course court department designer director dish district
document driver drug election engine engineer event exhibition factory festival film fish flower forest fruit garden
guest guitar gym hospital instructor invoice island journal judge king lake laptop lawyer lecture library lion
magazine manager market match meal medal meeting member model monument motor nurse office opera orchestra
painting park party performer pet phone photo pilot planet plant poem port president prison program project
race railway ranch recipe region report room route sailor satellite scientist sculpture seat senator shop singer
software soldier stadium staff star station statue street subject supplier surgeon swimmer tenant theater ticket
tool tourist tower toy trail tree trip truck tunnel university vehicle venue video village visitor volcano volunteer
waiter warehouse watch wedding winner worker writer zoo
""".split()

OLD = dict(more=("older than",), less=("younger than",), most=("oldest",), least=("youngest",))
DEAR = dict(
    more=("more expensive than", "priced above", "that cost more than", "costing over", "dearer than"),
    less=("cheaper than", "priced below", "that cost less than", "costing under", "less expensive than"),
    most=("most expensive", "priciest", "dearest"),
    least=("cheapest", "least expensive"),
)
TALL = dict(more=("taller than", "higher than"), less=("shorter than", "lower than"), most=("tallest", "highest"),
            least=("shortest", "lowest"))  # fmt: skip
LONG = dict(more=("longer than",), less=("shorter than",), most=("longest",), least=("shortest",))
HEAVY = dict(more=("heavier than", "that weigh more than"), less=("lighter than", "that weigh less than"),
             most=("heaviest",), least=("lightest",))  # fmt: skip
FAST = dict(more=("faster than",), less=("slower than",), most=("fastest", "quickest"), least=("slowest",))
BIG = dict(more=("bigger than", "larger than"), less=("smaller than",), most=("biggest", "largest"),
           least=("smallest", "tiniest"))  # fmt: skip
FAR = dict(more=("farther than", "further away than"), less=("closer than", "nearer than"),
           most=("farthest", "most distant"), least=("closest", "nearest"))  # fmt: skip
HOT = dict(more=("hotter than", "warmer than"), less=("colder than", "cooler than"), most=("hottest", "warmest"),
           least=("coldest", "coolest"))  # fmt: skip
RATED = dict(more=("rated above", "rated higher than", "that scored more than"),
             less=("rated below", "rated lower than", "that scored less than"),
             most=("best rated", "best", "top rated"), least=("worst rated", "worst", "lowest rated"))  # fmt: skip


def _year(*verbs: str) -> Concept:
    return Concept(
        "INTEGER", 1900, 2024,
        more=tuple(f"{v} after" for v in verbs) + tuple(f"that were {v} after" for v in verbs) + ("newer than",),
        less=tuple(f"{v} before" for v in verbs) + tuple(f"that were {v} before" for v in verbs) + ("older than",),
        most=("newest", "latest", "most recent", "youngest"), least=("oldest", "earliest"),
    )  # fmt: skip


def _counted(high: float) -> Concept:
    return Concept("INTEGER", 0, high, counted=True)


NUMBERS: dict[str, Concept] = {
    "age": Concept("INTEGER", 1, 95, **OLD),
    "price": Concept("REAL", 1, 900, **DEAR), "cost": Concept("REAL", 1, 5000, **DEAR),
    "fee": Concept("REAL", 1, 500, **DEAR), "rent": Concept("INTEGER", 200, 4000, **DEAR),
    "height": Concept("REAL", 1, 400, **TALL), "height_m": Concept("INTEGER", 2, 400, **TALL),
    "height_cm": Concept("INTEGER", 5, 250, **TALL), "elevation": Concept("INTEGER", 10, 5000, **TALL),
    "length": Concept("REAL", 1, 900, **LONG), "length_m": Concept("INTEGER", 1, 900, **LONG),
    "length_km": Concept("REAL", 1, 900, **LONG), "duration": Concept("INTEGER", 1, 300, **LONG),
    "minutes": Concept("INTEGER", 1, 240, **LONG), "hours": Concept("INTEGER", 1, 90, **LONG),
    "weight": Concept("REAL", 1, 900, **HEAVY), "weight_kg": Concept("REAL", 1, 900, **HEAVY),
    "weight_g": Concept("INTEGER", 1, 900, **HEAVY),
    "speed": Concept("INTEGER", 1, 400, **FAST), "top_speed": Concept("INTEGER", 1, 400, **FAST),
    "size": Concept("INTEGER", 1, 300, **BIG), "area": Concept("REAL", 1, 9000, **BIG),
    "area_km2": Concept("REAL", 1, 9000, **BIG), "diameter": Concept("REAL", 1, 90, **BIG),
    "width": Concept("REAL", 1, 90, more=("wider than",), less=("narrower than",), most=("widest",),
                     least=("narrowest",)),
    "depth": Concept("INTEGER", 1, 900, more=("deeper than",), less=("shallower than",), most=("deepest",),
                     least=("shallowest",)),
    "depth_m": Concept("INTEGER", 1, 900, more=("deeper than",), less=("shallower than",), most=("deepest",),
                       least=("shallowest",)),
    "thickness": Concept("REAL", 1, 50, more=("thicker than",), less=("thinner than",), most=("thickest",),
                         least=("thinnest",)),
    "distance": Concept("INTEGER", 1, 900, **FAR), "distance_km": Concept("REAL", 1, 900, **FAR),
    "temperature": Concept("INTEGER", 1, 99, **HOT), "temp_c": Concept("INTEGER", 1, 99, **HOT),
    "rating": Concept("REAL", 1, 10, **RATED), "score": Concept("INTEGER", 1, 100, **RATED),
    "stars": Concept("INTEGER", 1, 5, **RATED, counted=True),
    "year": _year("made", "dated"), "built_year": _year("built", "constructed"), "year_built": _year("built"),
    "founded": _year("founded", "established"), "founded_year": _year("founded"), "opened": _year("opened"),
    "release_year": _year("released"), "birth_year": _year("born"), "year_made": _year("made"),
    "built": _year("built"), "published": _year("published"), "start_year": _year("started"),
    "found_year": _year("found", "discovered"), "year_found": _year("found", "discovered"),
    "population": _counted(90000), "capacity": _counted(5000), "seats": _counted(900), "pages": _counted(900),
    "goals": _counted(60), "wins": _counted(60), "losses": _counted(60), "points": _counted(300),
    "rooms": _counted(90), "floors": _counted(90), "votes": _counted(9000), "students": _counted(900),
    "members": _counted(900), "visitors": _counted(9000), "copies": _counted(900), "episodes": _counted(90),
    "employees": _counted(9000), "passengers": _counted(500), "medals": _counted(30), "tracks": _counted(30),
    "stops": _counted(40), "doors": _counted(9), "sales": _counted(9000), "games": _counted(90),
    "salary": Concept("INTEGER", 900, 90000, more=("that earn more than", "earning over", "paid more than"),
                      less=("that earn less than", "earning under", "paid less than"), most=("best paid",),
                      least=("worst paid",)),
    "budget": Concept("INTEGER", 90, 90000), "revenue": Concept("INTEGER", 90, 90000),
    "profit": Concept("INTEGER", 9, 90000), "stock": Concept("INTEGER", 0, 900),
    "quantity": Concept("INTEGER", 0, 900), "amount": Concept("REAL", 1, 900), "rank": Concept("INTEGER", 1, 100),
    "level": Concept("INTEGER", 1, 50), "discount": Concept("INTEGER", 1, 90), "value": Concept("REAL", 1, 9000),
    "volume": Concept("REAL", 1, 900), "power": Concept("INTEGER", 1, 900), "calories": _counted(900),
    "experience": Concept("INTEGER", 1, 40), "week": Concept("INTEGER", 1, 52), "round": Concept("INTEGER", 1, 30),
    "number": Concept("INTEGER", 1, 99), "humidity": Concept("INTEGER", 1, 99), "attendance": _counted(90000),
    "wage": Concept("INTEGER", 5, 900), "balance": Concept("REAL", 1, 9000), "grade": Concept("INTEGER", 1, 12),
}  # fmt: skip

TEXTS: dict[str, Concept] = {
    "name": Concept("TEXT", post=("called {v}", "named {v}"), values="title"),
    "title": Concept("TEXT", post=("called {v}", "titled {v}"), values="title"),
    "city": Concept("TEXT", post=("in {v}", "from {v}", "located in {v}"), values="name"),
    "country": Concept("TEXT", post=("from {v}", "in {v}"), values="name"),
    "region": Concept("TEXT", post=("in {v}", "from {v}"), values="name"),
    "town": Concept("TEXT", post=("in {v}",), values="name"),
    "location": Concept("TEXT", post=("in {v}", "located in {v}"), values="name"),
    "origin": Concept("TEXT", post=("from {v}",), values="name"),
    "nationality": Concept("TEXT", values="name"), "birthplace": Concept("TEXT", values="name"),
    "district": Concept("TEXT", post=("in {v}",), values="name"),
    "author": Concept("TEXT", post=("by {v}", "written by {v}"), values="person"),
    "maker": Concept("TEXT", post=("made by {v}", "by {v}", "from {v}"), values="person"),
    "owner": Concept("TEXT", post=("owned by {v}", "that belong to {v}"), values="person"),
    "artist": Concept("TEXT", post=("by {v}",), values="person"),
    "director": Concept("TEXT", post=("directed by {v}",), values="person"),
    "manager": Concept("TEXT", post=("managed by {v}",), values="person"),
    "coach": Concept("TEXT", post=("coached by {v}", "trained by {v}"), values="person"),
    "captain": Concept("TEXT", values="person"), "teacher": Concept("TEXT", post=("taught by {v}",), values="person"),
    "keeper": Concept("TEXT", post=("kept by {v}",), values="person"),
    "designer": Concept("TEXT", post=("designed by {v}",), values="person"),
    "brand": Concept("TEXT", post=("from {v}", "made by {v}", "by {v}"), values="name"),
    "color": Concept("TEXT", post=("that are {v}",), values="color"),
    "material": Concept("TEXT", post=("made of {v}", "of {v}", "made from {v}"), values="material"),
    "type": Concept("TEXT", post=("of type {v}",), values="lower"),
    "category": Concept("TEXT", post=("in the category {v}", "in the {v} category"), values="lower"),
    "kind": Concept("TEXT", post=("of the kind {v}",), values="lower"),
    "style": Concept("TEXT", post=("in the style {v}",), values="lower"), "genre": Concept("TEXT", values="lower"),
    "status": Concept("TEXT", post=("that are {v}",), values="status"), "season": Concept("TEXT", values="season"),
    "language": Concept("TEXT", post=("in {v}",), values="name"), "position": Concept("TEXT", values="lower"),
    "department": Concept("TEXT", post=("in {v}", "in the {v} department"), values="lower"),
    "code": Concept("TEXT", post=("with the code {v}",), values="code"), "model": Concept("TEXT", values="code"),
    "gender": Concept("TEXT", values="gender"), "day": Concept("TEXT", post=("on {v}",), values="day"),
    "month": Concept("TEXT", post=("in {v}",), values="month"), "shape": Concept("TEXT", values="lower"),
    "species": Concept("TEXT", values="lower"), "condition": Concept("TEXT", values="status"),
}  # fmt: skip

ANY_NUMBER = Concept("INTEGER", 0, 1000)
ANY_REAL = Concept("REAL", 0, 1000)
ANY_TEXT = Concept("TEXT")

CATEGORY_VALUES: dict[str, tuple[str, ...]] = {
    "color": ("red", "blue", "green", "white", "black", "yellow", "brown", "grey", "Red", "Blue", "purple", "orange"),
    "material": ("wood", "steel", "stone", "glass", "cotton", "clay", "wool", "iron", "paper", "silk", "leather"),
    "status": ("open", "closed", "active", "retired", "new", "used", "good", "poor", "broken", "Active", "pending"),
    "season": ("spring", "summer", "autumn", "winter", "Spring", "Winter"),
    "gender": ("male", "female", "M", "F", "Male", "Female"),
    "day": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "month": ("January", "March", "May", "June", "August", "October", "December"),
}

NUMBER_WORDS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight", 9: "nine", 10: "ten"}

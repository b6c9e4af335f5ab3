"""Units beside a number: which names are the same unit, and how those of one kind convert."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Unit:
    """A unit: what it measures and how much of its kind's first unit it is."""

    kind: str
    factor: Fraction = Fraction(1)

    @staticmethod
    def of_money(name: str) -> Unit:
        """A currency; no rate is known between two of them."""
        return Unit(f"money: {name}")

    @staticmethod
    def of_noun(words: str) -> Unit:
        """What is counted, in the singular: "apples" and "apple" are one."""
        return Unit("count: " + " ".join(_singular(word) for word in words.lower().split()))

    def ratio(self, other: Unit) -> Fraction | None:
        """How many of `other` one of this is; None where no amount of one is the other."""
        return self.factor / other.factor if self.kind == other.kind else None


def _singular(word: str) -> str:
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    for ending in ("sses", "shes", "ches", "xes"):
        if word.endswith(ending):
            return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


# kind: names of one unit, "|" between them, and its size in the kind's first unit. A name of letters may also
# end with s; "2" after the name of a length is its square, "3" its cube.
_NAMES: dict[str, dict[str, str]] = {
    "length": {
        "m|meter|metre": "1",
        "km|kilometer|kilometre": "1000",
        "cm|centimeter|centimetre": "1/100",
        "mm|millimeter|millimetre": "1/1000",
        "dm|decimeter|decimetre": "1/10",
        "um|μm|µm|micrometer|micrometre|micron": "1/1000000",
        "nm|nanometer|nanometre": "1/1000000000",
        "inch|inches": "127/5000",
        "ft|foot|feet": "381/1250",
        "yd|yard": "1143/1250",
        "mi|mile": "201168/125",
        "light year|light-year|ly": "9460730472580800",
    },
    "time": {
        "s|sec|second": "1",
        "ms|millisecond": "1/1000",
        "us|μs|µs|microsecond": "1/1000000",
        "ns|nanosecond": "1/1000000000",
        "min|minute": "60",
        "h|hr|hour": "3600",
        "day": "86400",
        "week": "604800",
    },
    "months": {"month": "1", "yr|year|years old|year old": "12", "decade": "120"},
    "mass": {
        "kg|kilogram|kilogramme|kilo": "1",
        "g|gram|gramme": "1/1000",
        "mg|milligram": "1/1000000",
        "ug|μg|µg|microgram": "1/1000000000",
        "tonne|metric ton": "1000",
        "lb|lbs|pound": "45359237/100000000",
        "oz|ounce": "45359237/1600000000",
    },
    "volume": {
        "L|l|liter|litre": "1/1000",
        "mL|ml|milliliter|millilitre|cc": "1/1000000",
        "dL|dl|deciliter|decilitre": "1/10000",
    },
    "area": {"ha|hectare": "10000", "acre": "316160658/78125"},
    "angle": {"°|deg|degree": "1"},
    "radian": {"rad|radian": "1"},
    "celsius": {"°C|C|degree Celsius|degrees Celsius|Celsius|° C": "1"},
    "fahrenheit": {"°F|F|degree Fahrenheit|degrees Fahrenheit|Fahrenheit|° F": "1"},
    "temperature": {"K|kelvin": "1"},
    "speed": {
        "m/s|m s^-1|meters per second|metres per second|meter per second": "1",
        "km/h|kph|kmh|kmph|kilometers per hour|kilometres per hour|kilometer per hour": "5/18",
        "mph|mi/h|miles per hour|mile per hour": "1397/3125",
        "km/s|kilometers per second": "1000",
        "cm/s|centimeters per second": "1/100",
        "ft/s|feet per second": "381/1250",
        "knot": "463/900",
    },
    "acceleration": {"m/s^2|m/s2|m s^-2|meters per second squared": "1"},
    "force": {"N|newton": "1", "kN|kilonewton": "1000"},
    "torque": {"N m|Nm": "1"},
    "energy": {
        "J|joule": "1",
        "kJ|kilojoule": "1000",
        "MJ|megajoule": "1000000",
        "eV|electronvolt|electron volt": "801088317/5000000000000000000000000000",
        "cal|calorie": "523/125",
        "kcal|kilocalorie": "4184",
        "kWh|kilowatt hour|kilowatt-hour": "3600000",
    },
    "power": {"W|watt": "1", "kW|kilowatt": "1000", "MW|megawatt": "1000000", "mW|milliwatt": "1/1000"},
    "pressure": {
        "Pa|pascal": "1",
        "kPa|kilopascal": "1000",
        "MPa|megapascal": "1000000",
        "bar": "100000",
        "atm|atmosphere": "101325",
    },
    "voltage": {"V|volt": "1", "mV|millivolt": "1/1000", "kV|kilovolt": "1000"},
    "current": {"A|amp|ampere": "1", "mA|milliamp|milliampere": "1/1000"},
    "resistance": {"ohm|\\Omega": "1", "kohm|k\\Omega|kiloohm|kilohm": "1000"},
    "charge": {"coulomb": "1"},
    "frequency": {
        "Hz|hertz": "1",
        "kHz|kilohertz": "1000",
        "MHz|megahertz": "1000000",
        "GHz|gigahertz": "1000000000",
    },
    "frame rate": {"fps|frames per second": "1"},
    "amount": {"mol|mole": "1", "mmol|millimole": "1/1000"},
    "concentration": {"M|mol/L|mol/l": "1"},
    "density": {"kg/m^3|kg/m3": "1", "g/cm^3|g/cm3|g/mL|g/ml": "1000"},
    "data": {
        "bit": "1",
        "byte|B": "8",
        "kB|KB|kilobyte": "8000",
        "MB|megabyte": "8000000",
        "GB|gigabyte": "8000000000",
    },
    "money: dollar": {"dollar|usd|US dollar|buck": "1", "cent|¢": "1/100"},
    "money: euro": {"euro|eur": "1"},
    "money: pound sterling": {"pound sterling|pounds sterling|gbp|quid": "1", "pence|penny": "1/100"},
    "money: yen": {"yen|jpy": "1"},
    "money: rupee": {"rupee|inr": "1"},
    "money: yuan": {"yuan|rmb|cny": "1"},
    "square": {"square unit|sq unit|units^2|unit^2|units squared": "1"},
    "cube": {"cubic unit|cu unit|units^3|unit^3|units cubed": "1"},
    "unit": {"unit": "1"},
}


def _table() -> dict[str, Unit]:
    table: dict[str, Unit] = {}

    def add(name: str, unit: Unit) -> None:
        table.setdefault(name, unit)
        if len(name) > 2 and name[-1].isalpha() and not name.endswith("s"):
            table.setdefault(name + "s", unit)

    for kind, units in _NAMES.items():
        for names, size in units.items():
            for name in names.split("|"):
                add(name, Unit(kind, Fraction(size)))
    for names, size in _NAMES["length"].items():
        for name in names.split("|"):
            for power, kind, words, ending in (
                (2, "area", "square", "squared"),
                (3, "volume", "cubic", "cubed"),
            ):
                unit = Unit(kind, Fraction(size) ** power)
                plural = name if name in ("feet", "foot", "inches") or len(name) < 3 else name + "s"
                for form in (
                    *(f"{one}^{power}" for one in (name, plural)),
                    *(f"{words} {one}" for one in (name, plural)),
                    *(f"{words[:2]} {one}" for one in (name, plural)),
                    *(f"{one} {ending}" for one in (name, plural)),
                    *((f"{name}{power}",) if len(name) < 3 else ()),
                ):
                    add(form, unit)
    return table


UNITS = _table()
"""Name, as it is written beside a number -> the unit. Names of one or two letters heed case."""

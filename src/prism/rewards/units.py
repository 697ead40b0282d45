"""Units of measurement: a scale and a dimension, so that 500 cm is 5 m and 5 kg is never 5 lb."""

import re
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class Unit:
    """`factor` base units of `dimension`, e.g. km/h is 5/18 of (m, 1), (s, -1)."""

    factor: Fraction
    dimension: tuple[tuple[str, int], ...]


PERCENT = Unit(Fraction(1), (("percent", 1),))
DEGREE = Unit(Fraction(1), (("degree", 1),))

# symbol or word | … = factor × base^power …; a unit that converts to nothing else is its own base.
_DEFINITIONS = """
m meter metre 米 = 1 m
km kilometer kilometre 千米 公里 = 1000 m
dm decimeter decimetre 分米 = 1/10 m
cm centimeter centimetre 厘米 = 1/100 m
mm millimeter millimetre 毫米 = 1/1000 m
μm um micrometer micrometre micron = 1/1000000 m
nm nanometer nanometre = 1/1000000000 m
in inch inches = 127/5000 m
ft foot feet = 381/1250 m
yd yard = 1143/1250 m
mi mile = 201168/125 m
g gram gramme 克 = 1 g
kg kilogram 千克 公斤 = 1000 g
mg milligram 毫克 = 1/1000 g
t ton tonne 吨 = 1000000 g
lb lbs pound = 45359237/100000 g
oz ounce = 45359237/1600000 g
s sec second 秒 = 1 s
ms millisecond 毫秒 = 1/1000 s
min minute 分钟 = 60 s
h hr hour 小时 = 3600 s
day 天 = 86400 s
week 周 = 604800 s
month 个月 = 1 month
yr year 年 = 12 month
ha hectare 公顷 = 10000 m^2
acre = 1 acre
L l liter litre 升 = 1/1000 m^3
mL ml cc milliliter millilitre 毫升 = 1/1000000 m^3
gallon = 1 gallon
N newton 牛 牛顿 = 1000 g m s^-2
kN kilonewton = 1000000 g m s^-2
J joule 焦 焦耳 = 1000 g m^2 s^-2
kJ kilojoule = 1000000 g m^2 s^-2
kWh = 3600000000 g m^2 s^-2
cal calorie = 1 calorie
kcal kilocalorie = 1000 calorie
W watt 瓦 = 1000 g m^2 s^-3
kW kilowatt 千瓦 = 1000000 g m^2 s^-3
MW megawatt = 1000000000 g m^2 s^-3
mW milliwatt = 1 g m^2 s^-3
Pa pascal 帕 = 1000 g m^-1 s^-2
kPa kilopascal = 1000000 g m^-1 s^-2
Hz hertz 赫兹 = 1 s^-1
kHz kilohertz = 1000 s^-1
MHz megahertz = 1000000 s^-1
A amp ampere 安 安培 = 1 ampere
mA milliampere = 1/1000 ampere
V volt 伏 伏特 = 1 volt
kV kilovolt = 1000 volt
Ω ohm 欧 欧姆 = 1 volt ampere^-1
C coulomb = 1 ampere s
mol mole 摩尔 = 1 mole
K kelvin = 1 kelvin
°C celsius 摄氏度 = 1 celsius
°F fahrenheit = 1 fahrenheit
° deg degree 度 = 1 degree
rad radian 弧度 = 1 radian
% percent pct = 1 percent
mph = 201168/450000 m s^-1
kph kmh = 5/18 m s^-1
$ usd dollar 美元 = 1 dollar
¢ cent 美分 = 1/100 dollar
€ eur euro 欧元 = 1 euro
£ gbp 英镑 = 1 sterling
pence penny = 1/100 sterling
¥ cny rmb yuan 元 人民币 = 1 yuan
jpy yen 日元 = 1 yen
₹ inr rupee = 1 rupee
"""
_POWER_BEFORE = re.compile(r"(?:(square|sq\.?|平方)|(cubic|cu\.?|立方))\s*", re.IGNORECASE)
_POWER_AFTER = re.compile(r"\s*(?:(squared)|(cubed)|\^\s*\{?\s*(-?[1-4])\s*\}?|(?<=[a-z])([23]))$")
_DIVISION = re.compile(r"\s*(?:/|\bper\b)\s*", re.IGNORECASE)
_PRODUCT = re.compile(r"\s*(?:\\cdot|\*)\s*|\s+")
_TRAILING_ADJECTIVE = re.compile(r"\s+(?:long|tall|wide|high|deep|thick|old|each|total|in total|away|apart)$")
_TEMPERATURE = re.compile(r"^(?:°|degrees?)\s*(c|f|celsius|fahrenheit)$", re.IGNORECASE)
_CURRENCY_SIGN = re.compile(r"([-+]?)\s*(?:US|us)?\s*([$€£¥₹])\s*")
_MAX_UNIT_CHARS = 40


def _read_definitions() -> dict[str, Unit]:
    table = {}
    for line in _DEFINITIONS.strip().splitlines():
        names, _, definition = line.partition(" = ")
        factor, *bases = definition.split()
        powers = (base.partition("^") for base in bases)
        dimension = tuple(sorted((base, int(power or 1)) for base, _, power in powers))
        table |= dict.fromkeys(names.split(), Unit(Fraction(factor), dimension))
    return table


_TABLE = _read_definitions()


@lru_cache(maxsize=2048)
def read_unit(text: str) -> Unit | None:
    """The unit a cleaned text spells out as a whole (`km/h`, `square metres`, `m s^-2`); None if it is not one."""
    text = _TRAILING_ADJECTIVE.sub("", text.strip())
    if not text or len(text) > _MAX_UNIT_CHARS:
        return None
    temperature = _TEMPERATURE.match(text)
    if temperature:
        return _TABLE["°" + temperature[1][0].upper()]
    total, factor = Counter[str](), Fraction(1)
    for index, part in enumerate(_DIVISION.split(text)):
        product = _read_product(part)
        if product is None:
            return None
        sign = -1 if index else 1
        factor *= product.factor**sign
        for base, power in product.dimension:
            total[base] += sign * power
    return Unit(factor, tuple(sorted((base, power) for base, power in total.items() if power)))


def _read_product(text: str) -> Unit | None:
    whole = _read_factor(text)
    if whole is not None:
        return whole
    factors = [_read_factor(part) for part in _PRODUCT.split(text)]
    total, scale = Counter[str](), Fraction(1)
    for factor in factors:
        if factor is None:
            return None
        scale *= factor.factor
        for base, power in factor.dimension:
            total[base] += power
    return Unit(scale, tuple(total.items()))


def _read_factor(text: str) -> Unit | None:
    power = 1
    before = _POWER_BEFORE.match(text)
    if before:
        power, text = (2 if before[1] else 3), text[before.end() :]
    after = _POWER_AFTER.search(text)
    if after and not before:
        power = 2 if after[1] else 3 if after[2] else int(after[3] or after[4])
        text = text[: after.start()]
    unit = _read_name(text)
    if unit is None:
        return None
    return Unit(unit.factor**power, tuple((base, power * exponent) for base, exponent in unit.dimension))


def _read_name(name: str) -> Unit | None:
    """Symbols are looked up as written (mW is not MW), words in any case and in the plural."""
    if name in _TABLE:
        return _TABLE[name]
    word = name.rstrip(".").lower()
    if len(word) < 3:
        return _TABLE.get(name.rstrip("."))
    return _TABLE.get(word) or _TABLE.get(word.removesuffix("s"))


def split_currency(text: str) -> tuple[Unit | None, str]:
    """Take a currency sign off the front: `-$5` gives the dollar and `-5`."""
    match = _CURRENCY_SIGN.match(text)
    return (_TABLE[match[2]], match[1] + text[match.end() :]) if match else (None, text)

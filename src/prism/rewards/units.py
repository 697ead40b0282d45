"""Units of measurement: a scale and a dimension, so that 500 cm is 5 m and 5 kg is never 5 lb."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from prism.rewards.memory import Remembered


@dataclass(frozen=True, slots=True)
class Unit:
    """`factor` base units of `dimension`, e.g. km/h is 5/18 of (m, 1), (s, -1); `offset` is where its zero lies."""

    factor: Fraction
    dimension: tuple[tuple[str, int], ...]
    offset: Fraction = Fraction(0)


PERCENT = Unit(Fraction(1), (("percent", 1),))
DEGREE = Unit(Fraction(1), (("degree", 1),))
RADIAN = Unit(Fraction(1), (("radian", 1),))

# [prefixes] symbols; words = factor base^power … + offset. A unit that converts to nothing else is its own base.
_DEFINITIONS = """
[kdcmμunp] m; meter metre 米 = 1 m
in; inch inches 英寸 = 127/5000 m
ft; foot feet 英尺 = 381/1250 m
yd; yard = 1143/1250 m
mi; mile 英里 = 201168/125 m
; micron = 1/1000000 m
; 里 = 500 m
; 公里 = 1000 m
[kmμu] g; gram gramme 克 = 1 g
; 公斤 = 1000 g
t; ton tonne 吨 = 1000000 g
lb lbs; pound = 45359237/100000 g
oz; ounce = 45359237/1600000 g
[mμun] s; sec second secs 秒 = 1 s
min; minute mins 分钟 分 = 60 s
h hr hrs; hour 小时 时 = 3600 s
; day 天 日 = 86400 s
wk; week 周 星期 = 604800 s
; month 个月 月 = 1 month
yr; year 年 = 12 month
ha; hectare 公顷 = 10000 m^2
; acre = 1 acre
[mμud] L l; liter litre 升 = 1/1000 m^3
cc; = 1/1000000 m^3
gal; gallon = 1 gallon
[kM] N; newton 牛 牛顿 = 1000 g m s^-2
[kMGm] J; joule 焦 焦耳 = 1000 g m^2 s^-2
[kMG] Wh; = 3600000 g m^2 s^-2
[kMG] eV; electronvolt = 1 electronvolt
[k] cal; calorie 卡 = 1 calorie
[kMGmμ] W; watt 瓦 = 1000 g m^2 s^-3
[hkMG] Pa; pascal 帕 = 1000 g m^-1 s^-2
atm; = 1 atmosphere
[kMG] Hz; hertz 赫兹 = 1 s^-1
; unit = 1 unit
rpm; = 1 revolution s^-1
[kmμun] A; amp ampere 安 安培 = 1 ampere
[kmμM] V; volt 伏 伏特 = 1000 g m^2 s^-3 ampere^-1
[kMm] Ω; ohm 欧 欧姆 = 1000 g m^2 s^-3 ampere^-2
[mμunp] C; coulomb 库仑 = 1 ampere s
[mμunp] F; farad = 1/1000 ampere^2 s^4 g^-1 m^-2
[mμ] T; tesla = 1000 g s^-2 ampere^-1
Wb; weber = 1000 g m^2 s^-2 ampere^-1
[mμ] H; henry = 1000 g m^2 s^-2 ampere^-2
[km] mol; mole 摩尔 = 1 mole
K; kelvin = 1 kelvin
°C; celsius 摄氏度 = 1 kelvin + 5463/20
°F; fahrenheit 华氏度 = 5/9 kelvin + 45967/180
°; deg degree 度 = 1 degree
rad; radian 弧度 = 1 radian
%; percent pct = 1 percent
mph; = 201168/450000 m s^-1
kph kmh kmph; = 5/18 m s^-1
$; usd dollar 美元 = 1 dollar
¢; cent 美分 = 1/100 dollar
€; eur euro 欧元 = 1 euro
£; gbp 英镑 = 1 sterling
; pence penny = 1/100 sterling
¥; cny rmb yuan 元 人民币 块 块钱 = 1 yuan
; 角 毛 = 1/10 yuan
; jpy yen 日元 = 1 yen
₹; inr rupee rs = 1 rupee
"""
_PREFIXES = {
    "n": (Fraction(1, 10**9), "nano", "纳"), "p": (Fraction(1, 10**12), "pico", "皮"),
    "μ": (Fraction(1, 10**6), "micro", "微"), "u": (Fraction(1, 10**6), "", ""),
    "m": (Fraction(1, 1000), "milli", "毫"), "c": (Fraction(1, 100), "centi", "厘"),
    "d": (Fraction(1, 10), "deci", "分"), "h": (Fraction(100), "hecto", "百"),
    "k": (Fraction(1000), "kilo", "千"), "M": (Fraction(10**6), "mega", "兆"), "G": (Fraction(10**9), "giga", "吉"),
}  # fmt: skip
_DEFINITION = re.compile(r"(?:\[(.*)\] )?(.*?); ?(.*?) ?= (\S+) (.*?)(?: \+ (\S+))?")
_POWER_BEFORE = re.compile(r"(?:(square|sq\.?|平方)|(cubic|cu\.?|立方))\s*", re.IGNORECASE)
_POWER_AFTER = re.compile(r"\s*(?:(squared)|(cubed)|\^\s*\{?\s*(-?[1-4])\s*\}?|(?<=[a-z])([23]))$")
_DIVISION = re.compile(r"\s*(?:/|\bper\b)\s*", re.IGNORECASE)
_PRODUCT = re.compile(r"\s*(?:\\cdot|\*)\s*|\s+")
_TRAILING_ADJECTIVE = re.compile(r"\s+(?:long|tall|wide|high|deep|thick|old|each|total|in total|away|apart)$")
_TEMPERATURE = re.compile(r"^(?:°|degrees?)\s*(c|f|celsius|fahrenheit)$", re.IGNORECASE)
_METRES_PER_SECOND = re.compile(r"\bms\^(?=-[12]\b|\{-[12]\})")
_CURRENCY_SIGN = re.compile(
    r"([-+]?)\s*(?:(?:US|us)?\s*([$€£¥₹])|(USD|EUR|GBP|CNY|RMB|Rs\.?|INR)(?=\s|[0-9]))\s*", re.IGNORECASE
)
_MAX_UNIT_CHARS = 40


def _read_definitions() -> tuple[dict[str, Unit], dict[str, Unit]]:
    """Units by symbol, which are looked up as written, and by word."""
    symbols: dict[str, Unit] = {}
    words: dict[str, Unit] = {}
    for line in _DEFINITIONS.strip().splitlines():
        match = _DEFINITION.fullmatch(line)
        assert match is not None, line
        prefixes, short, long, factor, bases, offset = match.groups()
        powers = (base.partition("^") for base in bases.split())
        dimension = tuple(sorted((base, int(power or 1)) for base, _, power in powers))
        unit = Unit(Fraction(factor), dimension, Fraction(offset or 0))
        symbols |= dict.fromkeys(short.split(), unit)
        words |= dict.fromkeys(long.split(), unit)
        for prefix in prefixes or "":
            scale, latin, chinese = _PREFIXES[prefix]
            prefixed = Unit(unit.factor * scale, dimension)
            symbols |= dict.fromkeys((prefix + name for name in short.split()), prefixed)
            if latin:
                names = ((latin if name.isascii() else chinese) + name for name in long.split())
                words |= dict.fromkeys(names, prefixed)
    return symbols, words


_SYMBOLS, _WORDS = _read_definitions()
# Symbols that mean the same in any case; those with a milli or mega in front do not.
_ANY_CASE_SYMBOLS = "cm dm km kg ft lb oz mph kW kWh Hz kHz"
_ANY_CASE = {name.lower(): _SYMBOLS[name] for name in _ANY_CASE_SYMBOLS.split()}


@Remembered
def read_unit(text: str) -> Unit | None:
    """The unit a cleaned text spells out as a whole (`km/h`, `square metres`, `m s^-2`); None if it is not one."""
    text = _TRAILING_ADJECTIVE.sub("", text.strip())
    if not text or len(text) > _MAX_UNIT_CHARS:
        return None
    if text.lower() in ("per cent", "个百分点"):
        return PERCENT
    temperature = _TEMPERATURE.match(text)
    if temperature:
        return _SYMBOLS["°" + temperature[1][0].upper()]
    # Nobody means "per millisecond" by ms^{-1}.
    parts = _DIVISION.split(_METRES_PER_SECOND.sub("m s^", text))
    products = [_read_product(part) for part in parts]
    if len(products) == 1 or None in products:
        return products[0] if len(products) == 1 else None
    total, factor = Counter[str](), Fraction(1)
    for index, product in enumerate(products):
        assert product is not None
        sign = -1 if index else 1
        factor *= product.factor**sign
        for base, power in product.dimension:
            total[base] += sign * power
    return _unit(factor, total)


def _unit(factor: Fraction, powers: Mapping[str, int]) -> Unit:
    return Unit(factor, tuple(sorted((base, power) for base, power in powers.items() if power)))


def _read_product(text: str) -> Unit | None:
    whole = _read_factor(text)
    if whole is not None:
        return whole
    total, scale = Counter[str](), Fraction(1)
    for part in _PRODUCT.split(text):
        factor = _read_factor(part)
        if factor is None:
            return None
        scale *= factor.factor
        for base, power in factor.dimension:
            total[base] += power
    return _unit(scale, total)


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
    if unit is None or power == 1:
        return unit
    return Unit(unit.factor**power, tuple((base, power * exponent) for base, exponent in unit.dimension))


def _read_name(name: str) -> Unit | None:
    """Symbols are looked up as written (mW is not MW), words in any case and in the plural."""
    if name in _SYMBOLS:
        return _SYMBOLS[name]
    word = name.rstrip(".").lower()
    return _WORDS.get(word) or _WORDS.get(word.removesuffix("s")) or _ANY_CASE.get(word)


def split_currency(text: str) -> tuple[str, str]:
    """Take a currency sign or code off the front: `-$5` gives `$` and `-5`."""
    match = _CURRENCY_SIGN.match(text)
    return (match[2] or match[3], match[1] + text[match.end() :]) if match else ("", text)

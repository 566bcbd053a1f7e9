"""Sentences of the embedded corpus: a small generative grammar of English in three domains.

It is made to be learnt from less than an hour of speech and still to leave something to a language model: most tokens
come from about a hundred words, verbs agree with subjects that stand several words earlier, and homophones (`SEA` and
`SEE`, `KNIGHT` and `NIGHT`) sound alike, so that only their context tells which one is meant.
"""

import random
from collections.abc import Collection, Iterator
from functools import cache
from itertools import accumulate, cycle
from typing import NamedTuple

DOMAINS = ("commands", "stories", "news")

# Words that eSpeak's American English gives the same sounds (weak forms of TO, FOR, BY, WOULD and SOME aside).
HOMOPHONES = (
    ("TO", "TOO", "TWO"),
    ("ATE", "EIGHT"),
    ("BE", "BEE"),
    ("BLEW", "BLUE"),
    ("BUY", "BY"),
    ("DEAR", "DEER"),
    ("EYE", "I"),
    ("FLOUR", "FLOWER"),
    ("FOR", "FOUR"),
    ("HAIR", "HARE"),
    ("HEAR", "HERE"),
    ("HOUR", "OUR"),
    ("IT'S", "ITS"),
    ("KNEW", "NEW"),
    ("KNIGHT", "NIGHT"),
    ("KNOW", "NO"),
    ("KNOWS", "NOSE"),
    ("MADE", "MAID"),
    ("MAIL", "MALE"),
    ("MEAT", "MEET"),
    ("ONE", "WON"),
    ("PEACE", "PIECE"),
    ("PLAIN", "PLANE"),
    ("RAIN", "REIGN"),
    ("RIGHT", "WRITE"),
    ("ROAD", "RODE"),
    ("ROSE", "ROWS"),
    ("SAIL", "SALE"),
    ("SEA", "SEE"),
    ("SON", "SUN"),
    ("SOME", "SUM"),
    ("TAIL", "TALE"),
    ("THEIR", "THERE"),
    ("THREW", "THROUGH"),
    ("WAIT", "WEIGHT"),
    ("WEAK", "WEEK"),
    ("WOOD", "WOULD"),
)

WORDS_PER_SENTENCE = (5, 14)


def sentences(
    rng: random.Random, *, domains: Collection[str] = DOMAINS, exclude: Collection[str] = ()
) -> Iterator[str]:
    """Yield sentences without end, the domains taking turns; none of `exclude` is among them, repeats are."""
    excluded = frozenset(exclude)
    for domain in cycle(_checked(domains)):
        text = sentence(rng, domain=domain)
        while text in excluded:
            text = sentence(rng, domain=domain)
        yield text


def sentence(rng: random.Random, *, domain: str) -> str:
    """Draw one sentence: upper-case words of A to Z and the apostrophe, 5 to 14 of them."""
    (domain,) = _checked((domain,))
    shortest, longest = WORDS_PER_SENTENCE
    while True:
        words = _expand(domain, rng)
        if shortest <= len(words) <= longest:
            return " ".join(_with_articles(words))


def vocabulary() -> frozenset[str]:
    """Return every word that a sentence may hold."""
    symbols = _reachable(DOMAINS)
    return frozenset(
        word for symbol in symbols for words in _grammar()[symbol].alternatives for word in words if _is_word(word)
    ) | {"AN"}


def _checked(domains: Collection[str]) -> tuple[str, ...]:
    unknown = [domain for domain in domains if domain not in DOMAINS]
    if unknown or not domains:
        raise ValueError(f"domains: found {unknown or 'none'}; write one or more of {', '.join(DOMAINS)}")
    return tuple(domains)


def _expand(symbol: str, rng: random.Random) -> list[str]:
    if _is_word(symbol):
        return [symbol]
    rule = _grammar()[symbol]
    (chosen,) = rng.choices(rule.alternatives, cum_weights=rule.cumulative_weights)
    return [word for part in chosen for word in _expand(part, rng)]


def _with_articles(words: list[str]) -> list[str]:
    """Write AN for A before a vowel."""
    following = [*words[1:], ""]
    return [
        "AN" if word == "A" and (after[:1] in tuple("AEI") or after in ("OLD", "HOUR", "OPEN")) else word
        for word, after in zip(words, following, strict=True)
    ]


def _is_word(symbol: str) -> bool:
    return symbol.isupper()


# The notation. A rule reads `symbol: weight parts | weight parts`; upper case is a word, lower case a symbol, the
# weight defaults to 1. A symbol ending in `.A` stands for three rules, one for each class of agreement: M and F
# (masculine and feminine singular) and P (plural). A lexicon line lists words from frequent to rare, weighted as
# 1 / rank (Zipf), and `a/b` are the singular and plural form of a noun or a verb.

_RULES = """
stories: 3 tale.M | 2 tale.F | 3 tale.P | 2 scene
tale.A: 3 np.A deed.A | 4 np.A rel.A deed.A | 2 np.A rel.A be.A mood | np.A be.A mood AND deed.A | 1 past.A
np.A: 6 THE person.A | 2 THE look person.A
person.M: he.M
person.F: she.F
person.P: 3 he.P | 2 she.P
rel.A: 3 WHO see.A the_thing | 2 WHO sit.A BY THE place | 1 FROM THE place
deed.A: 4 see.A the_thing | 3 write.A TO own.A kin | 2 wait.A FOR own.A kin | 3 go.A TO THE place | \
  2 know.A THE RIGHT way | 1 know.A NO one_of | tell.A us A look TALE
past.A: 2 np.A RODE through_the ALL NIGHT | np.A MADE two_things FOR own.A kin | np.A ATE SOME food | \
  np.A THREW two_things INTO THE SEA | np.A KNEW THE WAY through_the
through_the: THROUGH THE place | BY THE place
scene: 3 THERE IS A look creature BY THE place | 2 THERE ARE many thing.P IN THE place | \
  2 THE NIGHT IS look AND look | THE SUN IS RED OVER THE place | THE beast.M HAS A LONG part | \
  THE look beast.P feed IN THE place | THE STORM BLEW ALL NIGHT OVER THE place | \
  THE person.F WITH THE look HAIR see.F the_thing | THE REIGN OF THE look KING WAS LONG
the_thing: 4 THE thing.M | 3 THE thing.P | 2 number thing.P
two_things: 2 number thing.P | A look thing.M
one_of: 2 FEAR | PEACE | 2 WAY HOME | TALE
creature: 2 beast.M | person.M | FLOWER
be.M: 3 IS | 2 WAS
be.F: 3 IS | 2 WAS
be.P: 3 ARE | 2 WERE
own.M: HIS
own.F: HER
own.P: THEIR

commands: 3 please order | 3 please order AND order | 2 ask | 1 state
please: 3 PLEASE | 2 NOW
order: 3 TURN onoff THE device | 2 TURN side AT THE stop | 3 BUY number goods.P | BUY SOME food | 2 CALL my kin | \
  2 WRITE TO my kin | 2 WAIT FOR us HERE | 2 PLAY number_song | 2 MEET us AT THE stop AT clock | \
  2 SET THE device FOR clock | SEND THE MAIL TO my kin | 2 OPEN THE device | GO THROUGH THE stop | \
  SHOW ME THE WEIGHT OF THE goods.P | tell_them | CUT A PIECE OF food | \
  PUT THE goods.P IN THE room
tell_them: 2 TELL THE he.P WHO ARE HERE TO WAIT | TELL THE he.M WHO IS HERE TO WAIT | TELL us A look TALE
ask: 3 I WOULD LIKE TO wish | 2 WE WOULD LIKE TO wish TOO | 2 WHERE IS THE device IN THE room | \
  WHERE ARE THE goods.P | I KNOW IT'S TIME TO wish | DO YOU KNOW THE WAY TO THE stop
state: I CAN SEE THE device FROM HERE | I CAN HEAR THE device IN THE room | THERE ARE NO goods.P IN THE room | \
  I HAVE NO food FOR my kin | THE device IN THE room IS TOO look
wish: 3 BUY number goods.P | 2 SEE THE SEA | 2 HEAR number_song | MEET my kin AT clock | BE HOME BY clock | \
  TURN onoff THE device | WAIT HERE FOR an_hour
an_hour: 2 AN HOUR | A WEEK
number_song: 2 A look SONG | number SONGS | OUR SONG | THE look SONG
onoff: 3 ON | 2 OFF
side: 2 RIGHT | LEFT
my: 4 MY | 2 OUR | YOUR
us: 3 ME | 2 US | HIM | HER

news: 3 report.M | 3 report.P | 2 weather | 2 market | 2 sport | 2 people
report.A: 3 THE office.A say.A statement | 3 THE office.A WHO MET THE office say.A statement | \
  2 THE office.A FROM THE region have.A NO NEWS | 2 THE office.A OF THE realm have.A MADE A look plan | \
  1 THE office.A WHO WON THE vote say.A statement
office.M: leader.M
office.P: leader.P
office: 2 leader.M | leader.P
have.M: HAS
have.P: HAVE
statement: 3 THERE WILL BE outcome day | THERE WILL BE outcome IN THE region | \
  2 THE look plan IS RIGHT FOR THE realm | 2 THE realm WOULD LIKE TO SEE PEACE | \
  IT'S TOO WEAK | IT'S TIME FOR PEACE | THEIR plan WILL help US | NO ONE KNOWS THE SUM
outcome: 3 PEACE | 2 NO PEACE | A look plan | A SALE | A vote
weather: 4 THERE WILL BE SOME RAIN IN THE region day | 2 THE RAIN FROM THE SEA WILL COME day | \
  THE STORM FROM THE region WILL BE look | THE SUN WILL BE BACK IN THE region day
market: 3 THE price OF food ROSE BY number points | 2 THE price OF food FELL BY number points THIS WEEK | \
  THE SALE OF food IN THE region WAS look
sport: 3 THE TEAM FROM THE region WON number GAMES | 2 THE TEAM WON BY ONE POINT day | \
  THE TEAM FROM THE region HAS WON ITS GAME | THE TEAMS FROM THE region HAVE WON THEIR GAMES
people: 2 number people_of WERE hurt ON THE ROAD TO THE realm | THE PLANE TO THE region WAS AN HOUR LATE | \
  number SHIPS WILL SAIL TO THE region day | THE realm KNEW THE NEW leader.M WELL | number ROWS OF HOMES WERE hurt day
people_of: 3 PEOPLE | WORKERS | PLAYERS
day: 3 ON weekday | 1 THIS WEEK | LATE AT NIGHT
"""

_LEXICON = """
he: KNIGHT/KNIGHTS MAN/MEN BOY/BOYS KING/KINGS FARMER/FARMERS SAILOR/SAILORS TEACHER/TEACHERS PRINCE/PRINCES MALE/MALES
she: WOMAN/WOMEN GIRL/GIRLS QUEEN/QUEENS MAID/MAIDS LADY/LADIES NURSE/NURSES
kin: SON FRIEND MOTHER FATHER SISTER BROTHER DAUGHTER UNCLE COUSIN
beast: DOG/DOGS HORSE/HORSES BIRD/BIRDS BEE/BEES HARE/HARES DEER/DEER BEAR/BEARS FOX/FOXES CAT/CATS WOLF/WOLVES
part: TAIL NOSE EYE NECK
thing: SHIP/SHIPS FLOWER/FLOWERS BOOK/BOOKS LETTER/LETTERS TREE/TREES ROSE/ROSES BOAT/BOATS STONE/STONES RING/RINGS \
  SWORD/SWORDS CUP/CUPS BELL/BELLS
place: SEA ROAD WOOD HOUSE TOWN RIVER HILL PLAIN GARDEN CASTLE BRIDGE LAKE
look: NEW OLD GOOD LONG BLUE YOUNG WEAK STRONG GREAT BRAVE DEAR COLD QUIET SMALL FAIR PLAIN
mood: HERE HAPPY SAD RIGHT READY TIRED ALONE KIND
see: SEES/SEE HEARS/HEAR LOVES/LOVE FINDS/FIND BUYS/BUY MAKES/MAKE SELLS/SELL HOLDS/HOLD DRAWS/DRAW
know: KNOWS/KNOW
tell: TELLS/TELL
write: WRITES/WRITE RUNS/RUN TALKS/TALK SINGS/SING
wait: WAITS/WAIT LOOKS/LOOK ASKS/ASK
go: GOES/GO WALKS/WALK RUNS/RUN RIDES/RIDE COMES/COME
sit: SITS/SIT STANDS/STAND SLEEPS/SLEEP WORKS/WORK
feed: SLEEP FEED PLAY REST
way: WAY ROAD TALE SONG NAME
number: TWO FOUR EIGHT THREE TEN FIVE SIX SEVEN NINE
many: TWO MANY FOUR EIGHT SOME THREE
food: BREAD MEAT FLOUR FISH MILK RICE SALT CORN TEA
goods: EGG/EGGS APPLE/APPLES LAMP/LAMPS BOX/BOXES PLATE/PLATES TICKET/TICKETS CHAIR/CHAIRS SHOE/SHOES COAT/COATS
device: LIGHT DOOR RADIO CLOCK WINDOW FAN HEATER PHONE OVEN SCREEN CAMERA
room: KITCHEN HALL BEDROOM OFFICE CAR SHED
stop: LIGHT STATION CORNER SHOP BANK PARK SCHOOL GATE
clock: EIGHT TWO FOUR NINE NOON TEN ONE SEVEN
leader: MINISTER/MINISTERS MAYOR/MAYORS PRESIDENT/PRESIDENTS JUDGE/JUDGES DOCTOR/DOCTORS LAWYER/LAWYERS
say: SAYS/SAY THINKS/THINK HOPES/HOPE
plan: LAW PLAN TAX DEAL RULE
help: HELP HURT SAVE COST
vote: VOTE PRIZE RACE CASE
region: NORTH SOUTH EAST WEST COAST
realm: CITY STATE COUNTRY PARTY VILLAGE NATION
price: PRICE COST WEIGHT
points: POINTS POUNDS DOLLARS CENTS
hurt: HURT SEEN SAVED FOUND LOST
weekday: MONDAY FRIDAY SUNDAY TUESDAY SATURDAY THURSDAY WEDNESDAY
"""


class _Rule(NamedTuple):
    alternatives: list[tuple[str, ...]]
    cumulative_weights: list[float]


@cache
def _grammar() -> dict[str, _Rule]:
    """Parse the rules and the lexicon: symbol -> its alternatives and their cumulative weights."""
    grammar = dict(_lexicon())
    for symbol, text in _lines(_RULES):
        for agreement in "MFP" if symbol.endswith(".A") else "A":
            grammar[_agree(symbol, agreement)] = _rule(_agree(text, agreement))
    return grammar


def _lexicon() -> Iterator[tuple[str, _Rule]]:
    for symbol, text in _lines(_LEXICON):
        words = [word.split("/") for word in text.split()]
        weights = list(accumulate(1 / rank for rank in range(1, len(words) + 1)))
        if all(len(forms) == 2 for forms in words):
            singular, plural = (_Rule([(forms[i],) for forms in words], weights) for i in (0, 1))
            yield from ((f"{symbol}.M", singular), (f"{symbol}.F", singular), (f"{symbol}.P", plural))
        else:
            yield symbol, _Rule([(word,) for (word,) in words], weights)


def _rule(text: str) -> _Rule:
    alternatives = [alternative.split() for alternative in text.split("|")]
    weights = [float(parts.pop(0)) if parts[0].isdigit() else 1.0 for parts in alternatives]
    return _Rule([tuple(parts) for parts in alternatives], list(accumulate(weights)))


def _lines(text: str) -> Iterator[tuple[str, str]]:
    for line in text.replace("\\\n", " ").strip().splitlines():
        if line:
            symbol, _, body = line.partition(":")
            yield symbol, body


def _agree(text: str, agreement: str) -> str:
    return " ".join(part.removesuffix(".A") + f".{agreement}" if part.endswith(".A") else part for part in text.split())


def _reachable(symbols: Collection[str]) -> set[str]:
    found, waiting = set(), list(symbols)
    while waiting:
        symbol = waiting.pop()
        if symbol not in found and not _is_word(symbol):
            found.add(symbol)
            waiting.extend(part for parts in _grammar()[symbol].alternatives for part in parts)
    return found

#!/usr/bin/env python3
"""What a file of usage events costs, computed a second time and by other means than the engine.

Reads events as the contract describes them (one JSON event, array or structured CloudEvent a line) and the prices of
pricing/catalog/*.toml, and prints exact totals as JSON:

    recompute.py EVENTS.ndjson [--catalog DIR]
    recompute.py EVENTS.ndjson --compare ENGINE.json    exit status 1 and the exact difference where they disagree

It knows the contract and the price files alone and shares no code with the engine. Every sum is a Decimal with the Inexact
trap set: a digit that would be lost ends the run (MONEY-1, MONEY-2).

The rules, in the order in which they are applied:
  malformed  not JSON, or without a field that the contract requires: counted, costs nothing
  duplicate  the event_id (with the CloudEvents source, where there is one) was seen before: counted, the first one stands
  unpriced   no price of that model was in force at the event's own time, or a meter has no rate: counted, not 0 (RATE-3)
  priced     tokens in disjoint meters (RATE-2) times the rates in force at the event's time (RATE-1), one tier for the whole
             request, chosen by all of its input tokens

Limits: the ids of all events are held in memory, about 130 bytes each.
"""

import argparse
import decimal
import fnmatch
import json
import sys
import tomllib
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path

CONTEXT = decimal.Context(
    prec=80, traps=[decimal.Inexact, decimal.InvalidOperation, decimal.DivisionByZero, decimal.Overflow]
)
MONEY_PLACES = 18
PER_MTOK = -6

REQUIRED_TEXT = (
    "event_id", "timestamp", "environment", "org_id", "project_id", "agent_role", "agent_task_id",
    "model_provider", "model_name",
)
REQUIRED_COUNTS = ("tokens_input", "tokens_output", "tokens_total")

# Meters that an inclusive sender counts within its input and output tokens.
WITHIN_INPUT = ("cache_read", "cache_write_5m", "cache_write_1h", "cache_write_12h", "audio_input", "image_input")
WITHIN_OUTPUT = ("reasoning", "audio_output", "image_output")


class Malformed(Exception):
    """The record is no usage event."""


class Unpriced(Exception):
    """No price, or no rate for one of the event's meters."""


# --- prices ----------------------------------------------------------------------------------------------------------


def instant(text):
    """A time; without an offset it is UTC."""
    time = datetime.fromisoformat(text)
    return time.replace(tzinfo=timezone.utc) if time.tzinfo is None else time.astimezone(timezone.utc)


def decimals(table):
    return {meter: Decimal(rate) for meter, rate in table.items()}


class Price:
    """One price of one model, in force from a date on."""

    def __init__(self, table):
        self.start = instant(str(table["from"]))
        self.per_mtok = decimals(table.get("per_mtok", {}))
        self.per_unit = decimals(table.get("per_unit", {}))
        # The highest threshold first: it is the first one that a request exceeds.
        self.above = sorted(
            ((tier["input"], decimals(tier["per_mtok"])) for tier in table.get("above", [])), reverse=True,
            key=lambda tier: tier[0],
        )
        self.service_tiers = {
            name: table[name] for name in ("batch", "flex", "priority") if name in table
        }

    def rates(self, input_tokens, service_tier):
        """Rates of one request. A tier replaces the rates it lists, for the whole request."""
        rates = self.per_mtok
        for threshold, tier in self.above:
            if input_tokens > threshold:
                rates = rates | tier
                break
        if service_tier in (None, "standard"):
            return rates
        if service_tier not in self.service_tiers:
            raise Unpriced(f"no price for service tier {service_tier}")
        table = self.service_tiers[service_tier]
        if set(table) - {"multiplier", "per_mtok"} or ("per_mtok" in table and rates is not self.per_mtok):
            sys.exit(f"recompute: service tier {service_tier} with {sorted(table)} above a threshold is not covered here")
        multiplier = Decimal(table.get("multiplier", "1"))
        rates = {meter: CONTEXT.multiply(rate, multiplier) for meter, rate in rates.items()}
        return rates | decimals(table.get("per_mtok", {}))


class Catalog:
    def __init__(self, folder):
        files = sorted(Path(folder).glob("*.toml"))
        if not files:
            sys.exit(f"recompute: no *.toml price files in {folder}")
        self.providers = {}
        self.exact = {}
        self.patterns = []
        self.found = {}
        for file in files:
            book = tomllib.loads(file.read_text(encoding="utf-8"), parse_float=Decimal)
            for name in (book["provider"], *book.get("provider_aliases", [])):
                self.providers[name.casefold()] = book["provider"]
            for model in book["model"]:
                self.add(book["provider"], model)

    def add(self, provider, model):
        prices = sorted((Price(table) for table in model.get("price", [])), key=lambda price: price.start, reverse=True)
        entry = "free" if model.get("free") else prices
        for name in (model["name"], *model.get("aliases", [])):
            self.exact[provider, name.casefold()] = entry
        for pattern in model.get("patterns", []):
            self.patterns.append((provider, pattern.casefold(), entry))

    def entry(self, provider, model):
        """The prices of a model: by name or alias, else by pattern; None where the catalog does not know it."""
        asked = (provider, model)
        if asked not in self.found:
            provider = self.providers.get(provider.strip().casefold())
            model = model.strip().casefold()
            entry = self.exact.get((provider, model))
            if entry is None:
                matches = [e for p, pattern, e in self.patterns if p == provider and fnmatch.fnmatchcase(model, pattern)]
                if len(matches) > 1:
                    sys.exit(f"recompute: {len(matches)} patterns fit {asked}; which one counts is not covered here")
                entry = matches[0] if matches else None
            self.found[asked] = entry
        return self.found[asked]


# --- events ----------------------------------------------------------------------------------------------------------


def count(value, name):
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise Malformed(f"{name} is {value!r}, expected a whole number from 0 on")
    return value


def events_of(line):
    """The events in one record, each with its CloudEvents source or None."""
    try:
        record = json.loads(line, parse_float=Decimal)
    except (ValueError, RecursionError) as error:
        raise Malformed(str(error)) from None
    return record if isinstance(record, list) else [record]


def unwrap(record):
    if not isinstance(record, dict):
        raise Malformed("not an object")
    if "specversion" not in record:
        return None, record
    data = record.get("data")
    if not isinstance(data, dict):
        raise Malformed("a CloudEvent without data")
    data = {name: value for name, value in data.items() if value is not None}
    filled_in = {"event_id": record.get("id"), "timestamp": record.get("time")} | data
    return record.get("source"), filled_in


def check(event):
    """The event's time; Malformed where a required field is missing or of another type."""
    for name in REQUIRED_TEXT:
        if not isinstance(event.get(name), str) or not event[name]:
            raise Malformed(f"{name} is {event.get(name)!r}, expected a string")
    for name in REQUIRED_COUNTS:
        count(event.get(name), name)
    try:
        return instant(event["timestamp"])
    except ValueError:
        raise Malformed(f"timestamp is {event['timestamp']!r}") from None


def disjoint_meters(event):
    """Counts by meter, no token in two of them, and all input tokens of the request."""
    if event.get("provider_usage") is not None:
        sys.exit(f"recompute: event {event['event_id']} has provider_usage, which is not covered here")
    usage = event.get("usage") or {}
    meters = {name: count(value, f"usage.{name}") for name, value in usage.items() if value is not None}
    meters.setdefault("input", event["tokens_input"])
    meters.setdefault("output", event["tokens_output"])
    if event.get("usage_convention") in (None, "inclusive"):
        meters["input"] -= sum(meters.get(name, 0) for name in WITHIN_INPUT)
        meters["output"] -= sum(meters.get(name, 0) for name in WITHIN_OUTPUT)
        if meters["input"] < 0 or meters["output"] < 0:
            sys.exit(f"recompute: event {event['event_id']} has more tokens inside than in all, which is not covered here")
    input_tokens = meters["input"] + sum(meters.get(name, 0) for name in WITHIN_INPUT)
    return {name: n for name, n in meters.items() if n}, input_tokens


def rate_of(meter, rates):
    if meter in rates:
        return rates[meter]
    if meter == "reasoning":
        return rates.get("output")
    if meter == "cache_read":
        return rates.get("input")
    if meter.startswith("cache_write_") and not any(name.startswith("cache_write_") for name in rates):
        return rates.get("input")
    return None


def cost_of(event, time, catalog):
    entry = catalog.entry(event["model_provider"], event["model_name"])
    if entry is None:
        raise Unpriced("not in the catalog")
    if entry == "free":
        return Decimal(0)
    price = next((price for price in entry if price.start <= time), None)
    if price is None:
        raise Unpriced("before its first price")
    meters, input_tokens = disjoint_meters(event)
    rates = price.rates(input_tokens, event.get("service_tier"))
    cost = Decimal(0)
    for meter, n in meters.items():
        if meter in price.per_unit:
            part = CONTEXT.multiply(n, price.per_unit[meter])
        elif (rate := rate_of(meter, rates)) is not None:
            part = CONTEXT.multiply(n, rate).scaleb(PER_MTOK, CONTEXT)
        elif meter == "requests":
            continue
        else:
            raise Unpriced(f"no rate for {meter}")
        cost = CONTEXT.add(cost, part)
    if cost.normalize(CONTEXT).as_tuple().exponent < -MONEY_PLACES:
        sys.exit(f"recompute: event {event['event_id']} costs {cost}, which has more than {MONEY_PLACES} decimals")
    return cost


# --- totals ----------------------------------------------------------------------------------------------------------


class Totals:
    def __init__(self):
        self.rows = self.duplicates = self.malformed = self.unpriced = 0
        self.total = Decimal(0)
        self.by_agent = {}
        self.by_project = {}
        self.seen = set()

    def add(self, record, catalog):
        try:
            source, event = unwrap(record)
            time = check(event)
        except Malformed:
            self.malformed += 1
            return
        identity = event["event_id"] if source is None else (source, event["event_id"])
        if identity in self.seen:
            self.duplicates += 1
            return
        self.seen.add(identity)
        try:
            cost = cost_of(event, time, catalog)
        except Malformed:
            # A meter that is no count: found while pricing, but the event is no event then.
            self.seen.discard(identity)
            self.malformed += 1
            return
        except Unpriced:
            cost = None
        self.rows += 1
        if cost is None:
            self.unpriced += 1
            return
        self.total = CONTEXT.add(self.total, cost)
        for groups, key in ((self.by_agent, event["agent_role"]), (self.by_project, event["project_id"])):
            groups[key] = CONTEXT.add(groups.get(key, Decimal(0)), cost)

    def as_json(self):
        return {
            "rows": self.rows,
            "duplicates": self.duplicates,
            "malformed": self.malformed,
            "unpriced": self.unpriced,
            "total": plain(self.total),
            "by_agent": {key: plain(self.by_agent[key]) for key in sorted(self.by_agent)},
            "by_project": {key: plain(self.by_project[key]) for key in sorted(self.by_project)},
        }


def plain(amount):
    """Exact, without an exponent and without zeros at the end."""
    text = f"{amount:f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) or "0"


def recompute(path, catalog):
    totals = Totals()
    with sys.stdin.buffer if path == "-" else open(path, "rb") as lines:
        for line in lines:
            line = line.rstrip(b"\r\n")
            if not line:
                continue
            try:
                records = events_of(line)
            except Malformed:
                totals.malformed += 1
                continue
            for record in records:
                totals.add(record, catalog)
    return totals.as_json()


def differences(ours, engine):
    """One line for each disagreement. An agent or project without cost may be missing, null or 0 on either side."""
    lines = []
    for name in ("rows", "duplicates", "malformed", "unpriced"):
        if ours[name] != engine.get(name):
            lines.append(f"{name}: recomputed {ours[name]}, engine {engine.get(name)}")

    def compare(name, one, other):
        try:
            one, other = Decimal(str(one or 0)), Decimal(str(other or 0))
        except decimal.InvalidOperation:
            lines.append(f"{name}: recomputed {one}, engine {other}, which is no number")
            return
        if one != other:
            off = CONTEXT.subtract(other, one)
            lines.append(f"{name}: recomputed {plain(one)}, engine {plain(other)}, difference {plain(off)}")

    if engine.get("total") is None:
        lines.append(f"total: recomputed {ours['total']}, engine has none")
    else:
        compare("total", ours["total"], engine["total"])
    for groups in ("by_agent", "by_project"):
        theirs = engine.get(groups) or {}
        for key in sorted(set(ours[groups]) | set(theirs)):
            compare(f"{groups}.{key}", ours[groups].get(key), theirs.get(key))
    return lines


def main():
    parser = argparse.ArgumentParser(description="Recompute the exact cost of a file of usage events.")
    parser.add_argument("events", help="events, one record a line; - reads standard input")
    parser.add_argument(
        "--catalog", default=Path(__file__).resolve().parent.parent / "pricing" / "catalog", help="folder of price files"
    )
    parser.add_argument("--compare", metavar="ENGINE.json", help="the engine's totals in the shape printed here")
    arguments = parser.parse_args()

    try:
        ours = recompute(arguments.events, Catalog(arguments.catalog))
        engine = None
        if arguments.compare:
            engine = json.loads(Path(arguments.compare).read_text(encoding="utf-8"), parse_float=Decimal)
    except (OSError, ValueError) as error:
        sys.exit(f"recompute: {error}")
    json.dump(ours, sys.stdout, indent=2, ensure_ascii=False)
    print()
    if engine is not None:
        lines = differences(ours, engine)
        for line in lines:
            print(f"recompute: {line}", file=sys.stderr)
        sys.exit(1 if lines else 0)


if __name__ == "__main__":
    main()

//! The ledger's side of the admin listener: the report, live budgets, switches, contacts of other channels.

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::access::Caller;
use super::routes::{Answer, Asked, json as json_answer, query, text_as};
use super::switches::{blocking, lines};
use super::{AdminState, Problem};
use crate::campaigns::nearest::nearest;
use crate::clock::Timestamp;
use crate::config::Role;
use crate::decision::persons_behind;
use crate::delivery::{self, Unanswered, WithinADay, decimal};
use crate::generation::Generation;
use crate::ledger::{Dimension, Exposure, Ledger, Query, Scopes, Standing, Switch};

/// Under so many keys one contact is counted: as many as a bid's are.
const CONTACT_KEYS_MAX: usize = 16;

/// The ledger, or 404 where none runs.
fn books(asked: &Asked<'_>) -> Result<Ledger, Problem> {
    let books = asked.shared.state.books.clone();
    books.ok_or_else(|| Problem::new(404, "no_ledger", "this service keeps no books"))
}

fn gone() -> Problem {
    Problem::new(
        503,
        "ledger",
        "the ledger does not answer: its journal cannot be written, or it has stopped; see the log and `kith_ledger_writes`",
    )
}

/// `GET /v1/report?by=line_item,hour&from=…&until=…&format=json|csv`.
pub(super) async fn report(asked: &Asked<'_>) -> Result<Answer, Problem> {
    asked.caller.may_count(Role::Read)?;
    let (mut wanted, mut as_csv) = (Query::default(), false);
    wanted.by = vec![Dimension::LineItem];
    for (key, value) in query(asked.head.uri.query())? {
        match key.as_str() {
            "by" => wanted.by = dimensions(&value)?,
            "from" => wanted.from = hour(&key, &value)?,
            "until" => wanted.until = Some(hour(&key, &value)?),
            "format" if value == "csv" => as_csv = true,
            "format" if value == "json" => as_csv = false,
            "format" => {
                let detail = format!("`{value}` is no format: json or csv");
                return Err(Problem::new(400, "query", detail));
            }
            _ => {
                let detail =
                    format!("there is no parameter `{key}`; there are by, from, until, format");
                return Err(Problem::new(400, "query", detail));
            }
        }
    }
    let ledger = books(asked)?;
    let answer = move |_: &AdminState| -> Result<Answer, Problem> {
        let rows = delivery::rows(&ledger, &wanted).map_err(|why| match why {
            Unanswered::Gone => gone(),
            Unanswered::WithinADay(whole) => within_a_day(whole),
            Unanswered::TooManyRows => Problem::new(
                422,
                "too_many_rows",
                format!(
                    "the answer would have more than {} rows: ask for fewer hours by `from` and `until`, or by less; \
                     reports/<hour>.ndjson.gz in the data directory have all",
                    delivery::ROWS_MAX
                ),
            ),
        })?;
        if as_csv {
            let text = delivery::csv(&wanted.by, &rows);
            return Ok(text_as("text/csv; charset=utf-8", text));
        }
        let rows = rows.iter().map(|row| delivery::row_json(&wanted.by, row));
        let rows: Vec<Value> = rows.collect();
        Ok(json_answer(StatusCode::OK, &json!({ "rows": rows })))
    };
    blocking(asked, answer).await
}

fn within_a_day(whole: WithinADay) -> Problem {
    let time = |hour: u32| Timestamp::from_unix_seconds(i64::from(hour).saturating_mul(3600));
    let (before, from) = (time(whole.before), time(whole.from));
    let until = whole
        .until
        .map_or(String::new(), |until| format!("&until={}", time(until)));
    Problem::new(
        422,
        "within_a_day",
        format!(
            "of hours before {before} only the sum of each day (UTC) is kept: ask for whole ones, from={from}{until}; \
             reports/<hour>.ndjson.gz in the data directory have each hour"
        ),
    )
}

fn dimensions(words: &str) -> Result<Vec<Dimension>, Problem> {
    let mut by = Vec::new();
    for word in words.split(',').filter(|word| !word.is_empty()) {
        let known = Dimension::ALL
            .into_iter()
            .find(|dimension| dimension.as_str() == word);
        let dimension = known.ok_or_else(|| {
            let all = Dimension::ALL.map(Dimension::as_str).join(", ");
            Problem::new(400, "query", format!("by: `{word}` is none of {all}"))
        })?;
        if !by.contains(&dimension) {
            by.push(dimension);
        }
    }
    Ok(by)
}

/// A time's hour since 1970, rounded down.
fn hour(key: &str, text: &str) -> Result<u32, Problem> {
    let time: Result<Timestamp, _> = text.parse();
    let time = time.map_err(|error| Problem::new(400, "query", format!("{key}: {error}")))?;
    Ok(u32::try_from(time.unix_seconds() / 3600).unwrap_or(0))
}

/// `GET /v1/budgets`: how each live budget stands, now; and which line items are paced or stopped.
pub(super) async fn budgets(asked: &Asked<'_>) -> Result<Answer, Problem> {
    asked.caller.may_count(Role::Read)?;
    let ledger = books(asked)?;
    let (standings, paces) = blocking(asked, move |_| {
        let both = ledger.ask(|keeper| (keeper.standings(), keeper.paces()));
        both.ok_or_else(gone)
    })
    .await?;
    let shown = standings.iter().map(|standing| {
        let Standing {
            of,
            day,
            currency,
            limit,
            spent,
            reserved,
            forgotten,
            lent,
        } = standing;
        json!({
            of.0: of.1,
            "per": if day.is_some() { "day" } else { "total" },
            "currency": currency.as_str(),
            "limit": decimal(*limit),
            "spent": decimal(*spent),
            "reserved": decimal(*reserved),
            "forgotten": decimal(*forgotten),
            "lent": decimal(*lent),
            "overspent": decimal(spent.saturating_sub(*limit).max(0)),
        })
    });
    let shown: Vec<Value> = shown.collect();
    let paces: Vec<Value> = paces
        .iter()
        .map(|(line_item, share, stopped)| {
            let share = (share * 1e6).round() / 1e6;
            json!({"line_item": line_item, "pacing_share": share, "stopped": stopped})
        })
        .collect();
    let all = json!({"budgets": shown, "line_items": paces});
    Ok(json_answer(StatusCode::OK, &all))
}

/// `GET /v1/switches`: what is off. `POST`: `{"off": true, "line_item": "…"}`, or another of [`Switch::WORDS`], or none for everything.
pub(super) async fn switches(asked: &mut Asked<'_>, method: &Method) -> Result<Answer, Problem> {
    let ledger = match *method {
        Method::GET => {
            asked.caller.may_count(Role::Read)?;
            books(asked)?
        }
        Method::POST => {
            asked.caller.may_count(Role::Operate)?;
            let ledger = books(asked)?;
            let (switch, off) = wanted(super::switches::document(asked, SWITCH).await?)?;
            let by = Caller::clone(&asked.caller).name;
            let to = ledger.clone();
            blocking(asked, move |state| {
                let known = is_known(&switch, &to, &state.datasets.live().load())?;
                known.map_err(|detail| Problem::new(404, "no_such_name", detail))?;
                tracing::warn!(what = ?switch, off, by, "bidding is switched");
                match to.switch(switch, off) {
                    true => Ok(()),
                    false => Err(gone()),
                }
            })
            .await?;
            ledger
        }
        _ => return Err(Problem::method("GET, HEAD, POST")),
    };
    let off = blocking(asked, move |_| {
        let off = ledger.ask(|keeper| keeper.off().cloned().collect::<Vec<_>>());
        off.ok_or_else(gone)
    })
    .await?;
    let off: Vec<Value> = off
        .iter()
        .map(|switch| match switch.told() {
            ("everything", _) => json!({"everything": true}),
            (word, name) => json!({word: name}),
        })
        .collect();
    Ok(json_answer(StatusCode::OK, &json!({ "off": off })))
}

const SWITCH: &str = "{\"off\": true, \"line_item\": \"…\"}, or exchange, advertiser, campaign, or nothing beside `off` for all bidding";

/// What is to be switched. Read as a struct, and not as a map: a key that comes twice is refused.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Switched {
    off: bool,
    #[serde(default, deserialize_with = "said")]
    exchange: Option<String>,
    #[serde(default, deserialize_with = "said")]
    advertiser: Option<String>,
    #[serde(default, deserialize_with = "said")]
    campaign: Option<String>,
    #[serde(default, deserialize_with = "said")]
    line_item: Option<String>,
}

/// What is said is a text: `null` would otherwise stand for everything.
fn said<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    serde::Deserialize::deserialize(from).map(Some)
}

fn wanted(switched: Switched) -> Result<(Switch, bool), Problem> {
    let Switched {
        off,
        exchange,
        advertiser,
        campaign,
        line_item,
    } = switched;
    let named = [exchange, advertiser, campaign, line_item];
    let mut said = Switch::WORDS.into_iter().zip(named);
    let mut said = said.by_ref().filter_map(|(word, name)| Some((word, name?)));
    let switch = match (said.next(), said.next()) {
        (None, _) => Some(Switch::Everything),
        (Some((word, name)), None) => Switch::of(word, &name),
        (Some(_), Some(_)) => None,
    };
    let bad = || {
        Problem::new(
            422,
            "switch",
            format!("it names more than one; send {SWITCH}"),
        )
    };
    Ok((switch.ok_or_else(bad)?, off))
}

/// Whether there is what is to be switched, or it is off: what went from the campaigns can be switched on still. A name that
/// is none would be taken for a switch that works.
fn is_known(
    switch: &Switch,
    ledger: &Ledger,
    generation: &Generation,
) -> Result<Result<(), String>, Problem> {
    let asked = switch.clone();
    let of = ledger.ask(move |keeper| {
        let is_off = keeper.off().any(|off| *off == asked);
        (is_off, keeper.exchanges().map(str::to_owned).collect())
    });
    let (is_off, exchanges): (bool, Vec<String>) = of.ok_or_else(gone)?;
    let book = &generation.book;
    let line_items = book.line_items.iter();
    let names: Vec<&str> = match switch {
        Switch::Everything => return Ok(Ok(())),
        Switch::Exchange(_) => exchanges.iter().map(String::as_str).collect(),
        Switch::Advertiser(_) => book.advertisers.iter().map(|of| &*of.id).collect(),
        Switch::Campaign(_) => line_items.map(|of| &*of.campaign).collect(),
        Switch::LineItem(_) => line_items.map(|of| &*of.id).collect(),
    };
    let (word, name) = switch.told();
    if is_off || names.contains(&name) {
        return Ok(Ok(()));
    }
    let word = word.replace('_', " ");
    Ok(Err(match nearest(name, names) {
        Some(near) => format!("there is no {word} of that name; did you mean `{near}`?"),
        None if word == "exchange" => "no exchange of that name is configured".to_owned(),
        None => format!("the live campaigns have no {word} of that name"),
    }))
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct ExposureRow {
    source: String,
    id: String,
    at: Option<Timestamp>,
    line_item: Option<String>,
    campaign: Option<String>,
    advertiser: Option<String>,
}

/// `POST /v1/exposures`: a contact a line, `{"source", "id", "line_item" or "campaign" or "advertiser", "at"}`.
pub(super) async fn exposures(asked: &mut Asked<'_>) -> Result<Answer, Problem> {
    asked.caller.may_count(Role::Upload)?;
    let ledger = books(asked)?;
    let text = lines(asked).await?;
    let told = blocking(asked, move |state| {
        let generation = state.datasets.live().load();
        let now = (state.now)();
        let (mut all, mut rejected) = (Vec::new(), Vec::new());
        let mut accepted = 0usize;
        for (number, line) in (1u64..).zip(text.split('\n')) {
            if line.trim().is_empty() {
                continue;
            }
            match exposure(line, &generation, now) {
                Ok(exposure) => {
                    accepted = accepted.saturating_add(1);
                    all.extend(counted(&generation, &exposure, now));
                }
                Err(reason) => rejected.push(json!({"line": number, "reason": reason})),
            }
        }
        match accepted == 0 || ledger.exposures(all) {
            true => Ok(json!({"accepted": accepted, "rejected": rejected})),
            false => Err(gone()),
        }
    })
    .await?;
    Ok(json_answer(StatusCode::OK, &told))
}

/// A contact of an id, under all keys that contacts of its person are counted under.
fn counted(generation: &Generation, of: &Exposure, now: Timestamp) -> Vec<Exposure> {
    let came = [of.key];
    let persons = persons_behind(generation, &came, now);
    let keys = persons.counted(&came).take(CONTACT_KEYS_MAX);
    keys.map(|key| Exposure { key, ..*of }).collect()
}

fn exposure(line: &str, generation: &Generation, now: Timestamp) -> Result<Exposure, String> {
    let row: ExposureRow = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let keyer = &generation.frame.keyer;
    let key = keyer
        .user_key(&row.source, &row.id)
        .map_err(|error| error.to_string())?;
    let persons = persons_behind(generation, &[key], now);
    if persons.erased() > 0 {
        return Err("this id was erased, and nothing is held of it any more".to_owned());
    }
    if persons.has_opted_out() {
        return Err("this id opted out: nothing is counted for it".to_owned());
    }
    let at = row.at.unwrap_or(now);
    if at > now {
        return Err("`at` is in the future".to_owned());
    }
    let (scopes, remembered) = match (&row.line_item, &row.campaign, &row.advertiser) {
        (Some(id), None, None) => scopes_of(generation, "line item", id, |_, own| own == id),
        (None, Some(id), None) => {
            let found = scopes_of(generation, "campaign", id, |line_item, _| {
                *line_item.campaign == **id
            });
            found.map(|(scopes, remembered)| {
                (
                    Scopes {
                        line_item: u32::MAX,
                        ..scopes
                    },
                    remembered,
                )
            })
        }
        (None, None, Some(id)) => {
            let book = &generation.book;
            let found = scopes_of(generation, "advertiser", id, |line_item, _| {
                book.advertiser_of(line_item)
                    .is_some_and(|of| *of.id == **id)
            });
            let wide = |scopes| Scopes {
                line_item: u32::MAX,
                campaign: u32::MAX,
                ..scopes
            };
            found.map(|(scopes, remembered)| (wide(scopes), remembered))
        }
        _ => Err("say one of `line_item`, `campaign`, `advertiser`".to_owned()),
    }?;
    let at = u32::try_from(at.unix_seconds()).map_err(|_| "`at` is before 1970".to_owned())?;
    Ok(Exposure {
        key,
        at,
        scopes,
        remembered,
    })
}

/// What the line items that fit count for, and the longest that any of them remembers.
fn scopes_of(
    generation: &Generation,
    what: &str,
    id: &str,
    fits: impl Fn(&crate::campaigns::LineItem, &str) -> bool,
) -> Result<(Scopes, u32), String> {
    let all = generation.book.line_items.iter();
    let found = all.filter(|line_item| fits(line_item, &line_item.id));
    let counted = found.filter_map(|line_item| generation.plan.counts_for(line_item.index));
    counted
        .reduce(|(scopes, longest), (_, remembered)| (scopes, longest.max(remembered)))
        .ok_or_else(|| format!("no live {what} `{id}`"))
}

//! `GET /v1/rules/stats`: every instance tells what its rules have done, and whoever was asked adds it
//! up. An instance that does not answer is named: the others' figures are worth having without it.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};

use super::Api;
use super::definitions::name_and_version;
use super::incoming::{FORWARDED, Incoming};
use super::problem::Problem;
use super::runs::json_response;
use crate::clock::{Clock, SystemClock};
use crate::model::Timestamp;
use crate::pattern::{Mode, Rule};
use crate::runtime::kinds::Kind;
use crate::runtime::membership::Member;
use crate::runtime::patterns::stats::{RuleCounts, RuleLevel, RuleStats};

/// How long another instance may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// What one instance tells another.
#[derive(Serialize, Deserialize)]
struct Own {
    rules: Vec<RuleStats>,
}

#[derive(Serialize)]
struct StatsView {
    rules: Vec<RuleView>,
    instances: Vec<InstanceView>,
    unanswered: Vec<Unanswered>,
}

/// An instance whose figures are in the sums.
#[derive(Serialize)]
struct InstanceView {
    instance: String,
    /// What it counts, it counts from then on.
    since: Timestamp,
}

#[derive(Serialize)]
struct Unanswered {
    instance: String,
    reason: String,
}

#[derive(Serialize)]
struct RuleView {
    rule: String,
    version: u32,
    state: RuleState,
    #[serde(skip_serializing_if = "Option::is_none")]
    canary_percent: Option<f64>,
    #[serde(flatten)]
    counts: RuleCounts,
    keys: u64,
    partials: u64,
    buffered: u64,
    watermark: Option<Timestamp>,
    behind_ms: Option<i64>,
}

#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
enum RuleState {
    Live,
    Shadow,
    Canary,
    Disabled,
    Draining,
}

/// `GET /v1/rules/stats[?rule=]`, a name or a name and a version.
pub async fn stats(State(api): State<Api>, request: Incoming) -> Result<Response, Problem> {
    let mut query = request.query(&["rule"], &[])?.into_iter();
    let wanted = query.next().map(|(_, value)| value);
    let own = Own {
        rules: api.runs().rule_stats(),
    };
    if request.forwarded() {
        return Ok(answer(&own));
    }
    let wanted = wanted.as_deref().map(name_and_version).transpose()?;
    if let Some((name, version)) = wanted
        && api.definitions().get(Kind::Rule, name, None).is_none()
    {
        return Err(unknown(name, version));
    }
    let members = api.membership().cluster();
    let mut view = StatsView {
        rules: Vec::new(),
        instances: Vec::new(),
        unanswered: Vec::new(),
    };
    let mut sums = Sums::default();
    let mut members = members.into_iter();
    if let Some(this) = members.next() {
        sums.add(own.rules);
        view.instances.push(heard(this));
    }
    let asked = members.map(|member| async {
        let answered = ask(&api, &member).await;
        (member, answered)
    });
    for (member, answered) in join_all(asked).await {
        match answered {
            Ok(rules) => {
                sums.add(rules);
                view.instances.push(heard(member));
            }
            Err(reason) => view.unanswered.push(Unanswered {
                instance: member.instance,
                reason,
            }),
        }
    }
    view.rules = rules(&api, sums, wanted.map(|(name, _)| name));
    if let Some((name, Some(version))) = wanted {
        view.rules.retain(|rule| rule.version == version);
        if view.rules.is_empty() {
            return Err(unknown(name, Some(version)));
        }
    }
    Ok(answer(&view))
}

fn unknown(name: &str, version: Option<u32>) -> Problem {
    Problem::not_found(match version {
        Some(version) => format!("no rule `{name}@{version}` is applied and in force, or drains"),
        None => format!("no rule `{name}` is applied"),
    })
}

fn answer(value: &impl Serialize) -> Response {
    let text = serde_json::to_string(value).expect("figures serialise");
    json_response(StatusCode::OK, text)
}

fn heard(member: Member) -> InstanceView {
    InstanceView {
        instance: member.instance,
        since: member.started_at,
    }
}

async fn ask(api: &Api, member: &Member) -> Result<Vec<RuleStats>, String> {
    let asked = api
        .0
        .http
        .get(format!("{}/v1/rules/stats", member.api))
        .header(FORWARDED, api.membership().instance())
        .timeout(ANSWER_WITHIN)
        .send()
        .await
        .and_then(reqwest::Response::error_for_status)
        .map_err(|error| error.to_string())?;
    let own: Own = asked.json().await.map_err(|error| error.to_string())?;
    Ok(own.rules)
}

/// By name and version.
#[derive(Default)]
struct Sums(BTreeMap<(String, u32), (RuleCounts, Option<RuleLevel>)>);

impl Sums {
    fn add(&mut self, rules: Vec<RuleStats>) {
        for stats in rules {
            let (counts, level) = self.0.entry((stats.rule, stats.version)).or_default();
            counts.add(&stats.counts);
            if let Some(more) = stats.level {
                *level = Some(level.map_or(more, |level| level.and(more)));
            }
        }
    }
}

/// The highest version of each rule, in force or not, and those that still hold something.
fn rules(api: &Api, mut sums: Sums, name: Option<&str>) -> Vec<RuleView> {
    let now = SystemClock.now();
    let mut views: Vec<RuleView> = Vec::new();
    let is_asked = |of: &str| name.is_none_or(|name| name == of);
    for stored in api.definitions().list(Kind::Rule) {
        let Some(rule) = stored.definition.rule().filter(|rule| is_asked(&rule.name)) else {
            continue;
        };
        // Of each name the highest version comes first, and decides.
        if views.last().is_some_and(|last| *last.rule == *rule.name) {
            continue;
        }
        let sum = sums.0.remove(&(rule.name.to_string(), rule.version));
        views.push(view(&rule.name, rule.version, state(rule), sum, now));
        if let Some(last) = views.last_mut() {
            let canary = rule.canary.as_ref().filter(|_| rule.enabled);
            last.canary_percent = canary.map(|canary| canary.percent);
        }
    }
    for ((rule, version), sum) in sums.0 {
        let is_draining = sum.1.is_some_and(|level| level.is_draining);
        if is_draining && is_asked(&rule) {
            views.push(view(&rule, version, RuleState::Draining, Some(sum), now));
        }
    }
    views.sort_by(|one, two| {
        let newest_first = two.version.cmp(&one.version);
        one.rule.cmp(&two.rule).then(newest_first)
    });
    views
}

fn state(rule: &Rule) -> RuleState {
    match (rule.enabled, rule.mode) {
        (false, _) => RuleState::Disabled,
        (true, Mode::Shadow) => RuleState::Shadow,
        (true, Mode::Live) if rule.canary.is_some() => RuleState::Canary,
        (true, Mode::Live) => RuleState::Live,
    }
}

fn view(
    rule: &str,
    version: u32,
    state: RuleState,
    sum: Option<(RuleCounts, Option<RuleLevel>)>,
    now: Timestamp,
) -> RuleView {
    let (counts, level) = sum.unwrap_or_default();
    let watermark = level.and_then(|level| level.watermark);
    RuleView {
        rule: rule.to_owned(),
        version,
        state,
        canary_percent: None,
        counts,
        keys: level.map_or(0, |level| level.keys),
        partials: level.map_or(0, |level| level.partials),
        buffered: level.map_or(0, |level| level.buffered),
        watermark,
        behind_ms: watermark.map(|watermark| now.0.saturating_sub(watermark.0)),
    }
}

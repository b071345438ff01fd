//! From what an event calls provider and model to one model of the book, by fixed rules; never to a *different* model.
//!
//! # Which price list
//!
//! | the event's provider | the list |
//! | --- | --- |
//! | a provider of the book, or one of its `provider_aliases` | that one; capitals and `-`, `.`, space for `_` do not matter |
//! | a common name for one (see [`SYNONYMS`]): `ollama_local`, `azure_openai`, `vertex_ai`, `gemini`, `aws`, … | the first the book has of the row |
//! | none (empty, `unknown`, `none`, `null`, `litellm`, …), and the model name carries a prefix that names a provider | the prefix's |
//! | none, without such a prefix | all lists: the name must stand in exactly one (patterns are not tried) |
//! | one, and the model name shows that Bedrock, Vertex AI, Azure or OpenRouter bills it | that one's list first, then the stated one's |
//! | any other | none: [`Unpriced::UnknownProvider`], however well known the model |
//!
//! # Which model of the list, in this order; capitals never matter
//!
//! | step | example | is tried as |
//! | --- | --- | --- |
//! | 1 exact | `gpt-4o` | `gpt-4o` |
//! | 2 alias | `claude-sonnet-4` | an alias of `claude-sonnet-4-20250514` |
//! | 3 provider prefix | `openai/gpt-4o`, `azure/gpt-4o`, `openrouter/anthropic/claude-sonnet-4`, `models/gemini-2.5-pro` | what follows the prefix |
//! | | `bedrock/us-east-1/us.anthropic.claude-sonnet-4-20250514-v1:0`, the same as an ARN | each shorter form down to `claude-sonnet-4-20250514` |
//! | 4 dated suffix | `gpt-4o-2024-11-20`, `…-20250514`, `…@20250514`, `…-latest`, `…:latest` | `…@D` as `…-D`, then without the suffix |
//! | 5 pattern | `llama3.1:70b-instruct-q4_K_M` | `llama3.1:70b-*`: the longest literal wins |
//!
//! The names of steps 3 and 4 are looked up as in 1 and 2. In an overlaid book the upper layer's names and patterns
//! win. A prefix that names another provider than the event does is kept (and then found nowhere), unless it is a way
//! in which other vendors' models are reached: Azure, Vertex AI, Bedrock, OpenRouter, LiteLLM. Tags such as `:70b`,
//! `:free`, `ft:…`, `mini`, region prefixes of Azure and version suffixes such as `-0613` are part of the name: they
//! are never cut off.
//!
//! Limits: names up to 512 bytes; 8 prefixes.

mod names;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

pub use self::names::SYNONYMS;
use self::names::{BEDROCK_REGIONS, BEDROCK_VENDORS, NO_PROVIDER};
pub(crate) use self::names::{glob_fits, normalised as normalised_provider};
use self::names::{
    implied_provider, is_aws_region, is_called, is_route, normalised, without_bedrock_version, without_date,
};
use crate::book::{ModelSpec, ProviderSpec};
use crate::unpriced::Unpriced;

const NAME_MAX_BYTES: usize = 512;
const PREFIXES_MAX: usize = 8;

/// The last step that was needed to find the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MatchKind {
    Exact,
    Alias,
    ProviderPrefix,
    DatedSuffix,
    Pattern,
}

impl MatchKind {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            MatchKind::Exact => "exact",
            MatchKind::Alias => "alias",
            MatchKind::ProviderPrefix => "provider_prefix",
            MatchKind::DatedSuffix => "dated_suffix",
            MatchKind::Pattern => "pattern",
        }
    }
}

impl fmt::Display for MatchKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for MatchKind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// One thing that was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    pub rule: &'static str,
    pub tried: String,
    pub outcome: String,
}

/// How a provider and a model name were looked up. `Display` writes it for people, `Serialize` for programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    pub provider: String,
    pub model: String,
    pub steps: Vec<Step>,
    /// Provider and model as the book names them.
    pub matched_provider: Option<String>,
    pub matched_model: Option<String>,
    pub matched_by: Option<MatchKind>,
    /// Why nothing was found: the code and the sentence of [`Unpriced`].
    pub unpriced_code: Option<&'static str>,
    pub unpriced: Option<String>,
}

impl Explanation {
    pub(crate) fn new(
        provider: &str,
        model: &str,
        steps: Vec<Step>,
        found: Result<(String, String, MatchKind), Unpriced>,
    ) -> Explanation {
        let mut explanation = Explanation {
            provider: provider.to_owned(),
            model: model.to_owned(),
            steps,
            matched_provider: None,
            matched_model: None,
            matched_by: None,
            unpriced_code: None,
            unpriced: None,
        };
        match found {
            Ok((provider, model, kind)) => {
                explanation.matched_provider = Some(provider);
                explanation.matched_model = Some(model);
                explanation.matched_by = Some(kind);
            }
            Err(unpriced) => {
                explanation.unpriced_code = Some(unpriced.code());
                explanation.unpriced = Some(unpriced.to_string());
            }
        }
        explanation
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "provider `{}`, model `{}`", self.provider, self.model)?;
        for step in &self.steps {
            writeln!(f, "  {:<16} {:<48} {}", step.rule, step.tried, step.outcome)?;
        }
        match (&self.matched_provider, &self.matched_model, &self.matched_by, &self.unpriced) {
            (Some(provider), Some(model), Some(kind), _) => write!(f, "=> {provider} / {model} (by {kind})"),
            (.., Some(unpriced)) => write!(f, "=> unpriced: {unpriced}"),
            _ => write!(f, "=> unpriced"),
        }
    }
}

/// A model of the book, by position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub model: usize,
    pub kind: MatchKind,
}

/// All names of a book.
#[derive(Clone, Debug)]
pub(crate) struct Index {
    /// Provider names and aliases, normalised, to lists.
    providers: HashMap<String, usize>,
    lists: Vec<PriceList>,
}

#[derive(Clone, Debug)]
struct PriceList {
    provider: Arc<str>,
    names: HashMap<String, Named>,
    /// Best first.
    patterns: Vec<Pattern>,
}

#[derive(Clone, Debug)]
struct Named {
    model: usize,
    layer: u32,
    is_alias: bool,
}

#[derive(Clone, Debug)]
struct Pattern {
    glob: String,
    layer: u32,
    literal_bytes: usize,
    model: usize,
    model_name: Arc<str>,
}

impl Pattern {
    fn rank(&self) -> (u32, usize) {
        (self.layer, self.literal_bytes)
    }
}

/// The lists to look in.
struct Scope<'i> {
    lists: Vec<&'i PriceList>,
    /// Whether the event (or a prefix) names the provider.
    named: bool,
}

type Trace<'t> = &'t mut dyn FnMut(Step);

impl Index {
    pub(crate) fn new(providers: &BTreeMap<String, ProviderSpec>, models: &[ModelSpec]) -> Index {
        let mut index = Index { providers: HashMap::new(), lists: Vec::new() };
        let mut by_key: HashMap<&str, usize> = HashMap::new();
        for (key, provider) in providers {
            let list = index.lists.len();
            by_key.insert(key, list);
            let provider_name = Arc::clone(&provider.name);
            index.lists.push(PriceList { provider: provider_name, names: HashMap::new(), patterns: Vec::new() });
            for alias in &provider.aliases {
                index.providers.entry(normalised(alias)).or_insert(list);
            }
        }
        // Names of providers win over aliases of others that normalise alike.
        index.providers.extend(by_key.iter().map(|(key, list)| (normalised(key), *list)));
        for (position, model) in models.iter().enumerate() {
            let Some(list) = by_key.get(model.provider.to_ascii_lowercase().as_str()) else {
                continue;
            };
            let list = &mut index.lists[*list];
            let own = std::iter::once((model.name.to_ascii_lowercase(), false));
            for (name, is_alias) in own.chain(model.aliases.iter().map(|alias| (alias.to_ascii_lowercase(), true))) {
                let named = Named { model: position, layer: model.layer, is_alias };
                match list.names.get(&name) {
                    Some(other) if other.layer > named.layer => {}
                    _ => {
                        list.names.insert(name, named);
                    }
                }
            }
            list.patterns.extend(model.patterns.iter().map(|glob| Pattern {
                literal_bytes: glob.bytes().filter(|byte| *byte != b'*').count(),
                glob: glob.to_ascii_lowercase(),
                layer: model.layer,
                model: position,
                model_name: Arc::clone(&model.name),
            }));
        }
        for list in &mut index.lists {
            list.patterns.sort_by(|a, b| b.rank().cmp(&a.rank()).then_with(|| a.glob.cmp(&b.glob)));
        }
        index
    }

    pub(crate) fn find(&self, provider: &str, model: &str, trace: Trace<'_>) -> Result<Found, Unpriced> {
        let unknown = |provider: &str| Unpriced::UnknownModel { provider: provider.into(), model: model.into() };
        if model.len() > NAME_MAX_BYTES || provider.len() > NAME_MAX_BYTES {
            let cut = |name: &str| -> Arc<str> { name.chars().take(64).chain(['…']).collect::<String>().into() };
            return Err(Unpriced::UnknownModel { provider: cut(provider), model: cut(model) });
        }
        let name = model.trim().to_ascii_lowercase();
        if name.is_empty() {
            return Err(unknown(provider));
        }
        if let Some(route) = self.route(provider, &name) {
            let tried = format!("{provider} by way of {}", route.provider);
            trace(Step { rule: "provider", tried, outcome: format!("price list of `{}`", route.provider) });
            let scope = Scope { lists: vec![route], named: true };
            if let Some(found) = self.find_in(&scope, &name, model, trace)? {
                return Ok(Found { kind: found.kind.max(MatchKind::ProviderPrefix), ..found });
            }
        }
        let scope = self.scope(provider, &name, model, trace)?;
        self.find_in(&scope, &name, model, trace)?.ok_or_else(|| {
            unknown(match scope.lists.as_slice() {
                [list] => &list.provider,
                _ => provider,
            })
        })
    }

    fn find_in(&self, scope: &Scope<'_>, name: &str, model: &str, trace: Trace<'_>) -> Result<Option<Found>, Unpriced> {
        let forms = self.forms(scope, name);
        for (position, form) in forms.iter().enumerate() {
            let rule = if position == 0 { "name" } else { "provider prefix" };
            if let Some(named) = scope.lookup(form, rule, model, trace)? {
                let by_name = if named.is_alias { MatchKind::Alias } else { MatchKind::Exact };
                let kind = if position == 0 { by_name } else { MatchKind::ProviderPrefix };
                return Ok(Some(Found { model: named.model, kind }));
            }
        }
        for form in &forms {
            for undated in without_date(form) {
                if let Some(named) = scope.lookup(&undated, "dated suffix", model, trace)? {
                    return Ok(Some(Found { model: named.model, kind: MatchKind::DatedSuffix }));
                }
            }
        }
        for list in scope.lists.iter().filter(|_| scope.named) {
            for form in &forms {
                if let Some(pattern) = list.pattern(form, model, trace)? {
                    return Ok(Some(Found { model: pattern, kind: MatchKind::Pattern }));
                }
            }
        }
        Ok(None)
    }

    /// The list of the cloud or gateway that a model name shows, where the event states another provider: who bills
    /// `us.anthropic.claude-…` is Bedrock, though the sender says `anthropic`.
    fn route(&self, provider: &str, name: &str) -> Option<&PriceList> {
        let implied = implied_provider(name)?;
        if NO_PROVIDER.contains(&normalised(provider).as_str()) || !is_route(&normalised(implied)) {
            return None;
        }
        let (stated, route) = (self.list_of(provider)?, self.list_of(implied)?);
        (stated != route).then(|| &self.lists[route])
    }

    fn scope(&self, provider: &str, name: &str, model: &str, trace: Trace<'_>) -> Result<Scope<'_>, Unpriced> {
        let mut step = |tried: &str, outcome: String| {
            trace(Step { rule: "provider", tried: tried.to_owned(), outcome });
        };
        let stated = normalised(provider);
        // A list of the book may itself be called `litellm`; then that is what the event means.
        let is_stated = !NO_PROVIDER.contains(&stated.as_str()) || self.providers.contains_key(&stated);
        let named: Option<Cow<'_, str>> = if is_stated {
            Some(provider.into())
        } else if let Some(implied) = implied_provider(name).filter(|implied| self.is_provider(implied)) {
            step(provider, format!("none stated; the model name says `{implied}`"));
            Some(implied.to_owned().into())
        } else {
            None
        };
        let Some(named) = named else {
            step(provider, "none stated: the name must stand in exactly one list".to_owned());
            return Ok(Scope { lists: self.lists.iter().collect(), named: false });
        };
        match self.list_of(&named) {
            Some(list) => {
                step(&named, format!("price list of `{}`", self.lists[list].provider));
                Ok(Scope { lists: vec![&self.lists[list]], named: true })
            }
            None => {
                step(&named, "no price list".to_owned());
                Err(Unpriced::UnknownProvider { provider: named.trim().into(), model: model.into() })
            }
        }
    }

    /// The price list of a provider's name.
    fn list_of(&self, provider: &str) -> Option<usize> {
        let name = normalised(provider);
        self.providers.get(&name).copied().or_else(|| {
            let candidates = SYNONYMS.iter().find(|(names, _)| names.contains(&name.as_str()))?.1;
            candidates.iter().find_map(|candidate| self.providers.get(*candidate)).copied()
        })
    }

    fn is_provider(&self, name: &str) -> bool {
        let name = normalised(name);
        self.providers.contains_key(&name) || SYNONYMS.iter().any(|(names, _)| names.contains(&name.as_str()))
    }

    /// The name and what it is behind its prefixes, longest first.
    fn forms(&self, scope: &Scope<'_>, name: &str) -> Vec<String> {
        let mut forms = vec![name.to_owned()];
        let mut on_bedrock = false;
        while forms.len() <= PREFIXES_MAX {
            let last = forms[forms.len() - 1].as_str();
            match self.without_prefix(scope, last, &mut on_bedrock) {
                Some(shorter) if !shorter.is_empty() => forms.push(shorter.to_owned()),
                _ => break,
            }
        }
        // `anthropic.claude-…-v1:0` is the vendor's `claude-…` in Bedrock's words.
        let last = forms[forms.len() - 1].as_str();
        if let Some((vendor, rest)) = last.split_once('.')
            && BEDROCK_VENDORS.contains(&vendor)
            && !rest.is_empty()
        {
            let vendors_own = without_bedrock_version(rest).to_owned();
            forms.push(vendors_own);
        }
        forms
    }

    fn without_prefix<'n>(&self, scope: &Scope<'_>, name: &'n str, on_bedrock: &mut bool) -> Option<&'n str> {
        if name.starts_with("arn:") {
            // A plain or cross-region model behind an ARN; application profiles and provisioned models are opaque ids.
            *on_bedrock = true;
            return name.rsplit_once('/').map(|(_, id)| id);
        }
        if let Some(position) = name.find("models/")
            && (position == 0 || name.starts_with("publishers/") || name.starts_with("projects/"))
        {
            return Some(&name[position + "models/".len()..]);
        }
        if *on_bedrock
            && let Some((segment, rest)) = name.split_once('/')
            && (is_aws_region(segment) || segment == "converse" || segment == "invoke")
        {
            return Some(rest);
        }
        if let Some((region, rest)) = name.split_once('.')
            && BEDROCK_REGIONS.contains(&region)
            && rest.split_once('.').is_some_and(|(vendor, _)| BEDROCK_VENDORS.contains(&vendor))
        {
            return Some(rest);
        }
        let (prefix, rest) = name.split_once('/')?;
        let provider = normalised(prefix);
        let own = || self.list_of(prefix).is_some_and(|list| self.lists[list].provider == scope.lists[0].provider);
        if scope.named && (is_route(&provider) || own()) {
            *on_bedrock |= is_called(&provider, "bedrock");
            return Some(rest);
        }
        None
    }
}

impl Scope<'_> {
    fn lookup(
        &self,
        name: &str,
        rule: &'static str,
        model: &str,
        trace: Trace<'_>,
    ) -> Result<Option<&Named>, Unpriced> {
        let mut hits = self.lists.iter().filter_map(|list| list.names.get(name).map(|named| (list, named)));
        let outcome = match (hits.next(), hits.next()) {
            (None, _) => {
                trace(Step { rule, tried: name.to_owned(), outcome: "not listed".to_owned() });
                return Ok(None);
            }
            (Some((list, named)), None) => {
                let how = if named.is_alias { "alias" } else { "model" };
                trace(Step {
                    rule,
                    tried: name.to_owned(),
                    outcome: format!("{how} in the list of `{}`", list.provider),
                });
                return Ok(Some(named));
            }
            _ => self.lists.iter().filter(|list| list.names.contains_key(name)).map(|list| &*list.provider),
        };
        let candidates = outcome.collect::<Vec<_>>().join(", ");
        trace(Step { rule, tried: name.to_owned(), outcome: format!("in several lists: {candidates}") });
        Err(Unpriced::AmbiguousProvider { model: model.into(), candidates: candidates.into() })
    }
}

impl PriceList {
    /// The model whose pattern fits best.
    fn pattern(&self, name: &str, model: &str, trace: Trace<'_>) -> Result<Option<usize>, Unpriced> {
        let Some(best) = self.patterns.iter().find(|pattern| glob_fits(&pattern.glob, name)) else {
            if !self.patterns.is_empty() {
                let outcome = format!("fits none of {} patterns", self.patterns.len());
                trace(Step { rule: "pattern", tried: name.to_owned(), outcome });
            }
            return Ok(None);
        };
        let as_good = self.patterns.iter().filter(|other| other.rank() == best.rank() && glob_fits(&other.glob, name));
        let models: BTreeSet<&str> = as_good.map(|pattern| &*pattern.model_name).collect();
        if models.len() > 1 {
            let candidates = models.into_iter().collect::<Vec<_>>().join(", ");
            trace(Step { rule: "pattern", tried: name.to_owned(), outcome: format!("fits several: {candidates}") });
            let provider = Arc::clone(&self.provider);
            return Err(Unpriced::AmbiguousPattern { provider, model: model.into(), candidates: candidates.into() });
        }
        trace(Step { rule: "pattern", tried: name.to_owned(), outcome: format!("fits `{}`", best.glob) });
        Ok(Some(best.model))
    }
}

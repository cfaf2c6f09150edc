//! Who may use what: an ordered list of rules, evaluated by the filter where the MCP headers are
//! binding and by the backend everywhere.
//!
//! The first rule that matches decides. When none matches, the policy's default does, except for the
//! methods that only set a connection up or list what there is ([`is_housekeeping`]): those stay
//! allowed unless a rule says otherwise, since a list shows a caller only what the caller may use.
//!
//! A policy is the same JSON everywhere: the member `policy` of the filter's configuration, and the
//! file that the backend reads. Where it is enforced:
//!
//! ```
//! use identity::policy::{Policy, Request};
//! # use identity::Principal;
//! # fn run(caller: &Principal) -> Result<(), identity::PolicyError> {
//! let policy = Policy::from_json(br#"{"rules": [{"effect": "deny", "names": ["drop*"]}]}"#)?;
//! // A request: what is refused, and why (for the log; the caller gets less).
//! let decision = policy.decide(caller, Request { method: "tools/call", name: Some("drop_all") });
//! if policy.refuses(&decision) {
//!     println!("{}", decision.reason());
//! } else if !decision.allowed() {
//!     println!("dry run, would be refused: {}", decision.reason());
//! }
//! // A list shows what the caller may use.
//! let mut tools = vec!["report", "drop_all"];
//! tools.retain(|name| policy.shows(caller, "tools/list", name));
//! # Ok(())
//! # }
//! ```

use serde::{Deserialize, Serialize};

use crate::Principal;

/// Largest policy that [`Policy::from_json`] reads, in bytes.
pub const MAX_JSON: usize = 1024 * 1024;
/// Most rules in a policy.
pub const MAX_RULES: usize = 1000;
/// Longest pattern, in bytes.
pub const MAX_PATTERN: usize = 256;

/// What a rule, or the default, says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// The request may pass.
    #[default]
    Allow,
    /// The request is refused.
    Deny,
}

/// A text in which each `*` stands for any characters, none included.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Pattern(pub String);

impl Pattern {
    /// Whether the whole text fits, to the byte and case. Linear in pattern times text.
    pub fn matches(&self, text: &str) -> bool {
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = text.strip_prefix(first) else {
            return false;
        };
        let Some(last) = parts.next_back() else {
            return rest.is_empty();
        };
        for part in parts {
            let Some((_, after)) = rest.split_once(part) else {
                return false;
            };
            rest = after;
        }
        rest.ends_with(last)
    }
}

impl From<&str> for Pattern {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// One rule. It matches when all its conditions hold; a condition that is empty always holds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// A name for people: it appears in logs and in what explains a decision. Default: `rule N`.
    #[serde(default)]
    pub name: Option<String>,
    /// What holds when the rule matches.
    pub effect: Effect,
    /// Organisations, any of which is the request's.
    #[serde(default)]
    pub organisations: Vec<Pattern>,
    /// OAuth scopes that the token must all have.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// Roles, any of which the caller must have.
    #[serde(default)]
    pub roles: Vec<Pattern>,
    /// Groups, any of which the caller must be in.
    #[serde(default)]
    pub groups: Vec<Pattern>,
    /// OAuth clients, any of which must have obtained the token.
    #[serde(default)]
    pub clients: Vec<Pattern>,
    /// MCP methods, such as `tools/call` or `resources/*`.
    #[serde(default)]
    pub methods: Vec<Pattern>,
    /// Names of tools or prompts, or URIs of resources. A request that names nothing never fits.
    #[serde(default)]
    pub names: Vec<Pattern>,
}

/// The rules of a site.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// What holds when no rule matches.
    #[serde(default)]
    pub default: Effect,
    /// The rules, in the order in which they are tried.
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// Only write to the log what would be refused.
    #[serde(default)]
    pub dry_run: bool,
}

/// Who calls, as far as a policy looks.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// The organisation that the request is for.
    pub organisation: &'a str,
    /// The OAuth client that obtained the token.
    pub client: Option<&'a str>,
    /// The token's scopes, with those that they contain ([`crate::Hierarchy`]).
    pub scopes: &'a [String],
    /// Roles.
    pub roles: &'a [String],
    /// Groups.
    pub groups: &'a [String],
}

impl<'a> From<&'a Principal> for Caller<'a> {
    fn from(principal: &'a Principal) -> Self {
        Self {
            organisation: &principal.organisation,
            client: principal.client.as_deref(),
            scopes: &principal.scopes,
            roles: &principal.roles,
            groups: &principal.groups,
        }
    }
}

/// What a caller wants to do.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The MCP method, such as `tools/call`.
    pub method: &'a str,
    /// What it acts on: a tool's or prompt's name, a resource's URI; decoded.
    pub name: Option<&'a str>,
}

/// The outcome, and what says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision<'a> {
    /// Allow or deny. A dry run does not change it: see [`Policy::dry_run`].
    pub effect: Effect,
    /// The rule that matched and its number, counted from 1. `None`: the default, or housekeeping.
    pub rule: Option<(usize, &'a Rule)>,
    /// Whether the method only sets a connection up, or lists ([`is_housekeeping`]).
    pub housekeeping: bool,
    /// When denied: the scopes with which the first rule that allows would have matched. Asking the
    /// authorization server for them would help; empty when nothing would.
    pub scopes: &'a [String],
}

impl Decision<'_> {
    /// Why, in a few words for a log. It names rules, never anything of the caller's.
    pub fn reason(&self) -> String {
        let says = match self.effect {
            Effect::Allow => "allow",
            Effect::Deny => "deny",
        };
        match self.rule {
            Some((number, Rule { name: Some(name), .. })) => format!("rule {number}, {name:?}, says {says}"),
            Some((number, _)) => format!("rule {number} says {says}"),
            None if self.housekeeping => "no rule matches, and the method uses nothing".to_owned(),
            None => format!("no rule matches, and the default is {says}"),
        }
    }

    /// Whether the request may pass.
    pub fn allowed(&self) -> bool {
        self.effect == Effect::Allow
    }

    /// The rule's name for people: its own, or `rule N`, or `default`.
    pub fn rule_name(&self) -> String {
        match self.rule {
            Some((_, Rule { name: Some(name), .. })) => name.clone(),
            Some((number, _)) => format!("rule {number}"),
            None => "default".to_owned(),
        }
    }
}

/// What is wrong in a policy, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// More rules than [`MAX_RULES`].
    #[error("rules: more than {MAX_RULES} rules; use patterns (`*`), or roles, to say the same with fewer")]
    TooManyRules,
    /// Not JSON of a policy's form.
    #[error("not a policy in JSON: {0}")]
    Form(String),
    /// A pattern or scope that is empty or longer than [`MAX_PATTERN`].
    #[error("rules[{rule}].{field}[{index}]: an entry must have 1 to {MAX_PATTERN} bytes")]
    Pattern {
        /// Index of the rule, from 0.
        rule: usize,
        /// Name of the list.
        field: &'static str,
        /// Index in the list, from 0.
        index: usize,
    },
}

/// Whether a method only sets a connection up, ends something, lists what there is, or asks for a task
/// that an allowed request began.
pub fn is_housekeeping(method: &str) -> bool {
    matches!(method, "initialize" | "ping" | "server/discover" | "logging/setLevel" | "subscriptions/listen")
        || method.starts_with("notifications/")
        || method.starts_with("tasks/")
        || method.ends_with("/list")
}

/// The methods that use what a list shows: `tools/call` for `tools/list`. None for a method that lists nothing
/// that a policy is about. A skill is used by reading its `SKILL.md`.
pub fn used_by(list: &str) -> &'static [&'static str] {
    match list {
        "tools/list" => &["tools/call"],
        "prompts/list" => &["prompts/get"],
        "resources/list" | "resources/templates/list" | "resources/directory/read" => &["resources/read"],
        "skills/list" => &["skills/get", "resources/read"],
        _ => &[],
    }
}

/// Whether the `Mcp-Name` header repeats what a request of this method acts on (MCP 2026-07-28, transports; tasks
/// extension). For any other method the header says nothing: nobody compares it with the body.
pub fn is_named_in_header(method: &str) -> bool {
    matches!(
        method,
        "tools/call" | "prompts/get" | "resources/read" | "tasks/get" | "tasks/update" | "tasks/cancel"
    )
}

impl Policy {
    /// Reads and checks a policy: a JSON object of at most [`MAX_JSON`] bytes.
    ///
    /// # Errors
    /// [`PolicyError`] names the place and says what to do.
    pub fn from_json(json: &[u8]) -> Result<Self, PolicyError> {
        if json.len() > MAX_JSON {
            return Err(PolicyError::Form(format!("it is larger than {MAX_JSON} bytes")));
        }
        let policy: Self =
            serde_json::from_slice(json).map_err(|error| PolicyError::Form(error.to_string()))?;
        policy.check()?;
        Ok(policy)
    }

    /// Whether the policy has nothing to say: everybody may do everything.
    pub fn is_open(&self) -> bool {
        self.rules.is_empty() && self.default == Effect::Allow
    }

    /// Whether a request with this outcome is to be refused: not in a dry run, which only logs.
    pub fn refuses(&self, decision: &Decision<'_>) -> bool {
        !decision.allowed() && !self.dry_run
    }

    /// Whether a list (`tools/list`, `prompts/list`, `resources/list`, `resources/templates/list`,
    /// `resources/directory/read`, `skills/list`) shows an item to a caller: its name, its URI, or its URI
    /// template as it is written. Of other methods everything is shown.
    pub fn shows(&self, caller: &Principal, list: &str, name: &str) -> bool {
        self.is_open()
            || used_by(list)
                .iter()
                .all(|method| !self.refuses(&self.decide(caller, Request { method, name: Some(name) })))
    }

    /// Checks the bounds. To be called once, after reading a policy from outside.
    ///
    /// # Errors
    /// [`PolicyError`] names the place and says what to do.
    pub fn check(&self) -> Result<(), PolicyError> {
        if self.rules.len() > MAX_RULES {
            return Err(PolicyError::TooManyRules);
        }
        for (number, rule) in self.rules.iter().enumerate() {
            let patterns: [(&'static str, &[Pattern]); 6] = [
                ("organisations", &rule.organisations),
                ("roles", &rule.roles),
                ("groups", &rule.groups),
                ("clients", &rule.clients),
                ("methods", &rule.methods),
                ("names", &rule.names),
            ];
            let patterns = patterns.into_iter().flat_map(|(field, list)| {
                list.iter().enumerate().map(move |(index, pattern)| (field, index, &pattern.0))
            });
            let scopes = rule.scopes.iter().enumerate().map(|(index, scope)| ("scopes", index, scope));
            for (field, index, text) in patterns.chain(scopes) {
                if text.is_empty() || text.len() > MAX_PATTERN {
                    return Err(PolicyError::Pattern { rule: number, field, index });
                }
            }
        }
        Ok(())
    }

    /// Decides whether a caller may do something, and says which rule says so.
    pub fn decide<'a>(&'a self, caller: &Principal, request: Request<'_>) -> Decision<'a> {
        self.decide_for(caller.into(), request)
    }

    /// Decides by headers alone: method and `Mcp-Name`, decoded. `None` when the outcome hangs on what the body
    /// names: whoever reads the body decides then.
    pub fn decide_by_headers<'a>(
        &'a self,
        caller: Caller<'_>,
        method: &str,
        name: Option<&str>,
    ) -> Option<Decision<'a>> {
        if is_named_in_header(method) {
            return Some(self.decide_for(caller, Request { method, name }));
        }
        let request = Request { method, name: None };
        let decision = self.decide_for(caller, request);
        let before = decision.rule.map_or(self.rules.len(), |(number, _)| number);
        let hangs_on_name = |rule: &Rule| !rule.names.is_empty() && rule.fits_but_for_name(caller, request);
        let open = !is_housekeeping(method) && self.rules.iter().take(before).any(hangs_on_name);
        (!open).then_some(decision)
    }

    /// The same for a caller of whom there is no [`Principal`].
    pub fn decide_for<'a>(&'a self, caller: Caller<'_>, request: Request<'_>) -> Decision<'a> {
        let rules = || self.rules.iter().enumerate().map(|(index, rule)| (index.saturating_add(1), rule));
        let rule = rules().find(|(_, rule)| rule.fits(caller, request) && rule.has_scopes(caller));
        let housekeeping = is_housekeeping(request.method);
        let effect = match rule {
            Some((_, rule)) => rule.effect,
            None if housekeeping => Effect::Allow,
            None => self.default,
        };
        let scopes: &[String] = match effect {
            Effect::Allow => &[],
            // Only rules before the one that denied can change the outcome.
            Effect::Deny => rules()
                .take_while(|(number, _)| rule.is_none_or(|(denied, _)| *number < denied))
                .find(|(_, rule)| rule.fits(caller, request))
                .filter(|(_, rule)| rule.effect == Effect::Allow)
                .map_or(&[], |(_, rule)| rule.scopes.as_slice()),
        };
        Decision { effect, rule, housekeeping, scopes }
    }
}

impl Rule {
    /// Whether everything but the scopes fits.
    fn fits(&self, caller: Caller<'_>, request: Request<'_>) -> bool {
        one(&self.names, request.name) && self.fits_but_for_name(caller, request)
    }

    /// Whether everything but the scopes and the names fits.
    fn fits_but_for_name(&self, caller: Caller<'_>, request: Request<'_>) -> bool {
        let any = |patterns: &[Pattern], texts: &[String]| {
            patterns.is_empty()
                || texts.iter().any(|text| patterns.iter().any(|pattern| pattern.matches(text)))
        };
        one(&self.methods, Some(request.method))
            && one(&self.organisations, Some(caller.organisation))
            && one(&self.clients, caller.client)
            && any(&self.roles, caller.roles)
            && any(&self.groups, caller.groups)
    }

    fn has_scopes(&self, caller: Caller<'_>) -> bool {
        self.scopes.iter().all(|scope| caller.scopes.contains(scope))
    }
}

fn one(patterns: &[Pattern], text: Option<&str>) -> bool {
    patterns.is_empty() || text.is_some_and(|text| patterns.iter().any(|pattern| pattern.matches(text)))
}

#[cfg(test)]
mod tests;

//! Portals: their services, gateways, numbers and agents, and what must differ between all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Problems;
use crate::config::raw;
use crate::config::value::{Secret, TokenHash};
use crate::config::{
    Callback, MASKED_ECHO_TEXT_DEFAULT, MESSAGES_PER_SECOND_DEFAULT, MaskedEcho, NumberConfig, Portal,
    SEND_TTL_DEFAULT, Way, WhatsApp,
};
use crate::domain::event::Agent;
use crate::domain::ids::{GatewayId, NAME_BYTES_MAX, Number, PortalId, ServiceId};
use crate::domain::outbox::turns::{WEIGHT_DEFAULT, WEIGHT_MAX};
use crate::domain::portal::{
    BotWhenClaimed, PickUpRule, Plan, PortalRules, ROSTER_AGENTS_MAX, RosterSource, ServiceRules,
};
use crate::domain::view::Masking;

/// Longest `thread_role`, in bytes: as long as an id.
const THREAD_ROLE_BYTES_MAX: usize = 64;
/// Longest `masked_echo_text`, in bytes: WhatsApp's own longest text.
const MASKED_ECHO_TEXT_BYTES_MAX: usize = 4_096;
/// Shortest and longest time to live of a claim or of a waiting reply.
const TTL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(365 * 86_400));

/// A service's rules, its tokens, the agents that stand in the file, and where it is told by HTTP.
type Service = (ServiceRules, Vec<TokenHash>, Vec<Agent>, Option<Callback>);

/// Where each number and each of Meta's ids stands already, over all portals.
#[derive(Default)]
struct Known {
    numbers: BTreeMap<Number, String>,
    phone_number_ids: BTreeMap<String, String>,
}

impl Problems<'_> {
    pub(super) fn portals(&mut self, raw: Vec<raw::Portal>, whatsapp: &WhatsApp) -> Vec<Portal> {
        let mut ids = BTreeSet::new();
        let mut numbers = Known::default();
        let mut portals = Vec::new();
        for (at, portal) in raw.into_iter().enumerate() {
            let key = format!("portals[{at}]");
            let id: Option<PortalId> = self.id(format!("{key}.id"), &portal.id);
            if id.as_ref().is_some_and(|id| !ids.insert(id.clone())) {
                self.quoted(format!("{key}.id"), &portal.id, "an id that no other portal has");
            }
            portals.extend(self.portal(&key, id, portal, whatsapp, &mut numbers));
        }
        portals
    }

    fn portal(
        &mut self,
        key: &str,
        id: Option<PortalId>,
        raw: raw::Portal,
        whatsapp: &WhatsApp,
        known: &mut Known,
    ) -> Option<Portal> {
        let plans = [("bundle", Plan::Bundle), ("isolated", Plan::Isolated)];
        let plan = self.word(&format!("{key}.plan"), raw.plan, &plans, Plan::Bundle);
        let sources = [("adapter", RosterSource::Adapter), ("config", RosterSource::Config)];
        let rosters = self.word(&format!("{key}.rosters"), raw.rosters, &sources, RosterSource::Adapter);
        let mut tokens = BTreeMap::new();
        let mut services = Vec::new();
        let mut service_tokens: Vec<(ServiceId, Vec<TokenHash>)> = Vec::new();
        let mut fixed_rosters = BTreeMap::new();
        let mut callbacks = Vec::new();
        let mut thread_roles: Vec<(ServiceId, String)> = Vec::new();
        for (at, mut service) in raw.services.into_iter().enumerate() {
            let key = format!("{key}.services[{at}]");
            let role = self.thread_role(&key, service.thread_role.take(), &thread_roles);
            let Some((rules, hashes, agents, callback)) = self.service(&key, service, rosters) else {
                continue;
            };
            callbacks.extend(callback.map(|callback| (rules.service.clone(), callback)));
            thread_roles.extend(role.map(|role| (rules.service.clone(), role)));
            self.one_identity(&key, &hashes, &mut tokens);
            if service_tokens.iter().any(|(known, _)| *known == rules.service) {
                self.quoted(
                    format!("{key}.id"),
                    rules.service.as_str(),
                    "an id that no other service of the portal has",
                );
            }
            service_tokens.push((rules.service.clone(), hashes));
            fixed_rosters.insert(rules.service.clone(), agents);
            services.push(rules);
        }
        let mut gateways: Vec<(GatewayId, Vec<TokenHash>)> = Vec::new();
        for (at, gateway) in raw.gateways.into_iter().enumerate() {
            let key = format!("{key}.gateways[{at}]");
            let token_key = format!("{key}.token_sha256");
            let hashes = self.hashes(&token_key, gateway.token_sha256, gateway.token_sha256_file);
            self.one_identity(&key, &hashes, &mut tokens);
            let Some(id) = self.id::<GatewayId>(format!("{key}.id"), &gateway.id) else { continue };
            if id.as_str() == "builtin" || gateways.iter().any(|(known, _)| *known == id) {
                let accepted = "an id that no other gateway of the portal has, and not builtin";
                self.quoted(format!("{key}.id"), id.as_str(), accepted);
            }
            gateways.push((id, hashes));
        }
        let mut numbers = Vec::new();
        for (at, number) in raw.numbers.into_iter().enumerate() {
            let key = format!("{key}.numbers[{at}]");
            let Some(number) = self.number(&key, number, &gateways, whatsapp) else { continue };
            if let Some(id) = &number.phone_number_id
                && let Some(other) = known.phone_number_ids.insert(id.clone(), key.clone())
            {
                let accepted = format!("an id that stands nowhere else ({other} has it)");
                self.quoted(format!("{key}.phone_number_id"), id, accepted);
            }
            if let Some(other) = known.numbers.insert(number.number.clone(), key.clone()) {
                let accepted = format!("a number that stands nowhere else ({other} has it)");
                self.quoted(format!("{key}.number"), number.number.as_str(), accepted);
            }
            numbers.push(number);
        }
        let rules = PortalRules { portal: id?, plan, rosters, services, fixed_rosters };
        Some(Portal { rules, service_tokens, callbacks, thread_roles, gateways, numbers })
    }

    /// A role is one service's: a thread that is passed to it has one way to go.
    fn thread_role(
        &mut self,
        key: &str,
        role: Option<String>,
        known: &[(ServiceId, String)],
    ) -> Option<String> {
        let (key, role) = (format!("{key}.thread_role"), role?);
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | ':' | '-');
        if role.is_empty() || role.len() > THREAD_ROLE_BYTES_MAX || !role.chars().all(is_plain) {
            self.quoted(key, &role, "1 to 64 of A-Z a-z 0-9 . _ : -");
            return None;
        }
        if known.iter().any(|(_, other)| *other == role) {
            self.quoted(key, &role, "a role that no other service of the portal has");
            return None;
        }
        Some(role)
    }

    /// The same token for two would let one speak for the other.
    fn one_identity(&mut self, key: &str, hashes: &[TokenHash], known: &mut BTreeMap<[u8; 32], String>) {
        for (at, hash) in hashes.iter().enumerate() {
            if let Some(other) = known.insert(hash.bytes(), key.to_owned()) {
                let accepted = format!("a token that stands nowhere else ({other} has it)");
                self.add(format!("{key}.token_sha256[{at}]"), "<sha256>", accepted);
            }
        }
    }

    fn service(&mut self, key: &str, raw: raw::Service, rosters: RosterSource) -> Option<Service> {
        let callback = self.callback(key, raw.webhook, raw.masked_echo, raw.masked_echo_text);
        let id: Option<ServiceId> = self.id(format!("{key}.id"), &raw.id);
        let hashes = self.hashes(&format!("{key}.token_sha256"), raw.token_sha256, raw.token_sha256_file);
        let masking = [("broker", Masking::Broker), ("service", Masking::Service)];
        let pick_up = [
            ("exclusive", PickUpRule::Exclusive),
            ("takeover", PickUpRule::Takeover),
            ("open", PickUpRule::Open),
        ];
        let bot = [("send", BotWhenClaimed::Send), ("refuse", BotWhenClaimed::Refuse)];
        let claim_ttl_ms = raw.claim_ttl.is_some().then(|| {
            let ttl = self.duration(&format!("{key}.claim_ttl"), raw.claim_ttl, TTL.0, TTL);
            u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)
        });
        let masking = self.word(&format!("{key}.masking"), raw.masking, &masking, Masking::Broker);
        let pick_up = self.word(&format!("{key}.pick_up"), raw.pick_up, &pick_up, PickUpRule::Exclusive);
        let bot_when_claimed =
            self.word(&format!("{key}.bot_when_claimed"), raw.bot_when_claimed, &bot, BotWhenClaimed::Send);
        let weight = raw.weight.unwrap_or(WEIGHT_DEFAULT);
        if !(1..=WEIGHT_MAX).contains(&weight) {
            self.add(format!("{key}.weight"), weight, format!("1 to {WEIGHT_MAX}"));
        }
        if raw.agents.is_some() && rosters == RosterSource::Adapter {
            self.add(
                format!("{key}.agents"),
                "<given>",
                "no agents here, or rosters = \"config\" in the portal",
            );
        }
        let agents = self.agents(key, raw.agents.unwrap_or_default());
        let service = id?;
        let family = raw.family.unwrap_or_else(|| service.as_str().to_owned());
        Some((
            ServiceRules { service, family, masking, pick_up, claim_ttl_ms, bot_when_claimed, weight },
            hashes,
            agents,
            callback,
        ))
    }

    fn callback(
        &mut self,
        key: &str,
        webhook: Option<raw::Webhook>,
        masked_echo: Option<String>,
        text: Option<String>,
    ) -> Option<Callback> {
        let words = [("echo", MaskedEcho::Echo), ("standby", MaskedEcho::Standby), ("off", MaskedEcho::Off)];
        let masked_echo = self.word(&format!("{key}.masked_echo"), masked_echo, &words, MaskedEcho::Echo);
        let masked_echo_text = text.unwrap_or_else(|| MASKED_ECHO_TEXT_DEFAULT.to_owned());
        if masked_echo_text.is_empty() || masked_echo_text.len() > MASKED_ECHO_TEXT_BYTES_MAX {
            let value = format!("<{} bytes>", masked_echo_text.len());
            self.add(format!("{key}.masked_echo_text"), value, "1 to 4096 bytes");
        }
        let webhook = webhook?;
        if webhook.url.is_none() {
            self.add(format!("{key}.webhook.url"), "<missing>", "where the service is told");
        }
        let url = self.url(&format!("{key}.webhook.url"), webhook.url);
        let secret_key = format!("{key}.webhook.app_secret");
        let is_missing = webhook.app_secret.is_none() && webhook.app_secret_file.is_none();
        if is_missing {
            self.add(secret_key.clone(), "<missing>", "what signs what the service is told");
        }
        let app_secret = self.secret(&secret_key, webhook.app_secret, webhook.app_secret_file);
        Some(Callback { url: url?, app_secret: app_secret?, masked_echo, masked_echo_text })
    }

    fn agents(&mut self, key: &str, raw: Vec<raw::Agent>) -> Vec<Agent> {
        if raw.len() > ROSTER_AGENTS_MAX {
            self.add(format!("{key}.agents"), raw.len(), format!("at most {ROSTER_AGENTS_MAX} agents"));
        }
        let mut agents: Vec<Agent> = Vec::new();
        for (at, one) in raw.into_iter().enumerate() {
            let key = format!("{key}.agents[{at}]");
            if one.name.is_empty() || one.name.len() > NAME_BYTES_MAX {
                self.add(format!("{key}.name"), format!("<{} bytes>", one.name.len()), "1 to 256 bytes");
            }
            let Some(agent) = self.id(format!("{key}.agent"), &one.agent) else { continue };
            if agents.iter().any(|known| known.agent == agent) {
                self.quoted(format!("{key}.agent"), &one.agent, "an agent that does not stand there twice");
            }
            agents.push(Agent { agent, name: one.name.into(), lead: one.lead });
        }
        agents
    }

    fn number(
        &mut self,
        key: &str,
        raw: raw::Number,
        gateways: &[(GatewayId, Vec<TokenHash>)],
        whatsapp: &WhatsApp,
    ) -> Option<NumberConfig> {
        let number: Option<Number> = self.id(format!("{key}.number"), &raw.number);
        let app_secret = self.secret(&format!("{key}.app_secret"), raw.app_secret, raw.app_secret_file);
        let access_token =
            self.secret(&format!("{key}.access_token"), raw.access_token, raw.access_token_file);
        self.token(&format!("{key}.access_token"), access_token.as_ref());
        let way = match raw.gateway.as_deref() {
            Some("builtin") => Way::Builtin,
            Some(named) => match gateways.iter().find(|(id, _)| id.as_str() == named) {
                Some((id, _)) => Way::Tcp(id.clone()),
                None => {
                    self.quoted(format!("{key}.gateway"), named, "builtin, or a gateway of the same portal");
                    Way::None
                }
            },
            None if whatsapp.access_token.is_some() => Way::Builtin,
            None => match gateways {
                [(only, _)] => Way::Tcp(only.clone()),
                _ => Way::None,
            },
        };
        let phone_number_id = raw.phone_number_id;
        if let Some(id) = &phone_number_id
            && (id.is_empty() || id.len() > 32 || !id.bytes().all(|byte| byte.is_ascii_digit()))
        {
            self.quoted(format!("{key}.phone_number_id"), id, "1 to 32 digits, as Meta gives them");
        }
        if way == Way::Builtin {
            self.built_in(key, phone_number_id.is_some(), access_token.as_ref(), whatsapp);
        }
        if let Some(id) = &raw.waba_id
            && (id.is_empty() || id.len() > 32 || !id.bytes().all(|byte| byte.is_ascii_digit()))
        {
            self.quoted(format!("{key}.waba_id"), id, "1 to 32 digits, as Meta gives them");
        }
        let messages_per_second = raw.messages_per_second.unwrap_or(MESSAGES_PER_SECOND_DEFAULT);
        if !(1..=10_000).contains(&messages_per_second) {
            self.add(format!("{key}.messages_per_second"), messages_per_second, "1 to 10000");
        }
        let send_ttl = self.duration(&format!("{key}.send_ttl"), raw.send_ttl, SEND_TTL_DEFAULT, TTL);
        Some(NumberConfig {
            number: number?,
            phone_number_id,
            waba_id: raw.waba_id,
            way,
            send_ttl,
            messages_per_second,
            app_secret,
            access_token,
        })
    }

    /// What the built-in gateway can not send without.
    fn built_in(&mut self, key: &str, has_id: bool, own_token: Option<&Secret>, whatsapp: &WhatsApp) {
        if !has_id {
            self.add(
                format!("{key}.phone_number_id"),
                "<none>",
                "Meta's id of the number: the built-in gateway sends by it",
            );
        }
        match own_token.or(whatsapp.access_token.as_ref()) {
            None => self.add(
                format!("{key}.access_token"),
                "<none>",
                "what the built-in gateway sends with, here or in [whatsapp]",
            ),
            Some(token) if !token.expose().bytes().all(|byte| byte.is_ascii_graphic()) => {
                // Named where it stands.
                let key = if own_token.is_some() {
                    format!("{key}.access_token")
                } else {
                    "whatsapp.access_token".to_owned()
                };
                self.add(key, "<secret>", "visible ASCII characters, no blanks");
            }
            Some(_) => {}
        }
    }
}

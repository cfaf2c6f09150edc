//! Who calls a tool.

use std::ops::Deref;

use identity::Principal;
use rmcp::ErrorData;
use rmcp::handler::server::common::{AsRequestContext, FromContextPart};

/// Who calls, as the gateway established it from a validated token; a tool takes it as an argument. In a process
/// without a gateway it is one local user.
///
/// ```
/// use odin::Caller;
///
/// async fn whoami(caller: Caller) -> String {
///     format!("{} of {}", caller.subject, caller.organisation)
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller(pub Principal);

impl Deref for Caller {
    type Target = Principal;

    fn deref(&self) -> &Principal {
        &self.0
    }
}

impl<C: AsRequestContext> FromContextPart<C> for Caller {
    fn from_context_part(context: &mut C) -> Result<Self, ErrorData> {
        let caller = context.as_request_context().extensions.get::<Principal>().cloned();
        let unknown =
            || ErrorData::internal_error("nobody is known as the caller: run this server with odin", None);
        caller.map(Self).ok_or_else(unknown)
    }
}

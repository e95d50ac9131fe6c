//! Profile (`api/pkg/apis/projectcalico/v3/profile.go`).

use model::{Profile, Resource};

use super::rule::{self, Place};
use super::{Identity, Outcome};
use crate::fields::{Fault, Object};
use crate::metadata::{self, Naming};

pub(super) fn convert(identity: &Identity<'_>, spec: &Object<'_>) -> Result<Outcome, Fault> {
    Naming::Subdomain.check("Profile", &identity.name_field)?;
    let mut unused = Vec::new();
    let profile = Profile {
        name: identity.name.clone(),
        labels_to_apply: metadata::labels(&spec.object("labelsToApply")?)?,
        ingress: rule::list(spec, "ingress", Place::PROFILE, &mut unused)?,
        egress: rule::list(spec, "egress", Place::PROFILE, &mut unused)?,
    };
    Ok(Outcome { unused, ..Outcome::of(Resource::Profile(profile)) })
}

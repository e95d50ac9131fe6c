//! ClusterInformation (`api/pkg/apis/projectcalico/v3/clusterinfo.go`), without `datastoreReady`, which says whether anything
//! else is to be read.

use model::{ClusterInformation, Resource};

use super::{Identity, Outcome};
use crate::fields::{Fault, Object};

pub(super) fn convert(identity: &Identity<'_>, spec: &Object<'_>) -> Result<Outcome, Fault> {
    match spec.text("clusterType")? {
        Some((_, cluster_type)) if identity.name == "default" => {
            let (name, cluster_type) = (identity.name.clone(), cluster_type.to_owned());
            Ok(Outcome::of(Resource::ClusterInformation(ClusterInformation { name, cluster_type })))
        }
        _ => Ok(Outcome::default()),
    }
}

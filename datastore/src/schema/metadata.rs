//! What every resource begins with (`k8s.io/apimachinery/pkg/apis/meta/v1`).

use super::{INT64, Member, Struct, TEXTS, Type, always, choice, filled, flag, given, text, texts};

pub(super) const KIND: Member = text("kind");
pub(super) const API_VERSION: Member = text("apiVersion");

/// `metadata`.
pub(super) const METADATA: Member = filled("metadata", Type::Struct(&OBJECT_META));

/// What is known of a resource of whichever kind.
pub(super) static ALONE: Struct = Struct { name: "Object", members: &[METADATA] };

static OBJECT_META: Struct = Struct {
    name: "ObjectMeta",
    members: &[
        text("name"),
        text("generateName"),
        text("namespace"),
        text("selfLink"),
        text("uid"),
        text("resourceVersion"),
        filled("generation", Type::Int(INT64)),
        filled("creationTimestamp", Type::Time),
        given("deletionTimestamp", Type::Time),
        given("deletionGracePeriodSeconds", Type::Int(INT64)),
        filled("labels", Type::Texts),
        filled("annotations", Type::Texts),
        filled("ownerReferences", Type::List(&Type::Struct(&OWNER))),
        texts("finalizers"),
        // Gone from Kubernetes; manifests still have it.
        text("clusterName"),
        filled("managedFields", Type::List(&Type::Struct(&MANAGED_FIELDS))),
    ],
};

static OWNER: Struct = Struct {
    name: "OwnerReference",
    members: &[
        always("apiVersion", Type::Text),
        always("kind", Type::Text),
        always("name", Type::Text),
        always("uid", Type::Text),
        choice("controller"),
        choice("blockOwnerDeletion"),
    ],
};

static MANAGED_FIELDS: Struct = Struct {
    name: "ManagedFieldsEntry",
    members: &[
        text("manager"),
        text("operation"),
        text("apiVersion"),
        given("time", Type::Time),
        text("fieldsType"),
        given("fieldsV1", Type::Any),
        text("subresource"),
    ],
};

/// `metav1.LabelSelector`.
pub(super) static LABEL_SELECTOR: Struct = Struct {
    name: "LabelSelector",
    members: &[
        filled("matchLabels", Type::Texts),
        filled("matchExpressions", Type::List(&Type::Struct(&REQUIREMENT))),
    ],
};

static REQUIREMENT: Struct = Struct {
    name: "LabelSelectorRequirement",
    members: &[always("key", Type::Text), always("operator", Type::Text), filled("values", TEXTS)],
};

/// `metav1.Condition`.
pub(super) static CONDITION: Struct = Struct {
    name: "Condition",
    members: &[
        always("type", Type::Text),
        always("status", Type::Text),
        filled("observedGeneration", Type::Int(INT64)),
        always("lastTransitionTime", Type::Time),
        always("reason", Type::Text),
        always("message", Type::Text),
    ],
};

/// `corev1.SecretKeySelector`, in what a password needs of it.
pub(super) static BGP_PASSWORD: Struct =
    Struct { name: "BGPPassword", members: &[given("secretKeyRef", Type::Struct(&SECRET_KEY))] };

static SECRET_KEY: Struct = Struct {
    name: "SecretKeySelector",
    members: &[text("name"), always("key", Type::Text), choice("optional")],
};

/// A flag that some lists of fields need.
pub(super) const fn disabled() -> Member {
    flag("disabled")
}

use super::*;

fn answer(text: &str) -> Answer {
    let source = Source::Text { name: "f.yaml".into(), bytes: text.as_bytes().to_vec() };
    Answer::of(datastore::read(vec![source]))
}

const POLICY: &str = "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: web}\n\
                      spec: {ingress: [{action: Deny}, {action: Allow}]}\n";

#[test]
fn good_resources_are_counted_as_calicoctl_counts_them() {
    let one = answer("apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: a}\n");
    assert_eq!(one.lines(), "Successfully validated 1 'Tier' resource(s)\n");
    let two = answer(&format!(
        "{POLICY}---\napiVersion: projectcalico.org/v3\nkind: Profile\nmetadata: {{name: a}}\n"
    ));
    assert!(two.lines().ends_with("Successfully validated 2 resource(s)\n"), "{}", two.lines());
    assert_eq!(answer("").lines(), "No resources specified\n");
}

#[test]
fn what_is_legal_and_not_meant_is_a_warning_with_its_place() {
    let answer = answer(POLICY);
    assert!(answer.errors.is_empty());
    assert_eq!(
        answer.lines(),
        "warning: f.yaml:1:1: GlobalNetworkPolicy(web): spec.ingress[1]: never asked: spec.ingress[0] (Deny) matches \
         all that it matches; put this one before it, or take one of them out\n\
         Successfully validated 1 'GlobalNetworkPolicy' resource(s)\n"
    );
}

#[test]
fn what_is_wrong_is_an_error_with_its_place() {
    let answer = answer(&POLICY.replace("Allow", "allow"));
    assert_eq!(answer.errors[0].field.as_deref(), Some("spec.ingress[1].action"));
    assert_eq!((answer.errors[0].line, answer.warnings.len()), (Some(4), 0));
    assert!(answer.lines().ends_with("Failed to validate: 1 error(s)\n"));
}

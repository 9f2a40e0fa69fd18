//! What a generated client registers for bearer auth.

use aws_smithy_runtime::client::{auth::http::BearerAuthScheme, identity::IdentityCache};
use aws_smithy_runtime_api::client::{
    auth::{
        AuthSchemeOptionResolverParams, http::HTTP_BEARER_AUTH_SCHEME_ID,
        static_resolver::StaticAuthSchemeOptionResolver,
    },
    identity::SharedIdentityResolver,
    runtime_components::RuntimeComponentsBuilder,
    runtime_plugin::{SharedRuntimePlugin, StaticRuntimePlugin},
};
use aws_smithy_types::config_bag::Layer;

use super::simulated::Simulated;

pub fn bearer_auth(identity: Simulated) -> SharedRuntimePlugin {
    let scheme = HTTP_BEARER_AUTH_SCHEME_ID;
    let components = RuntimeComponentsBuilder::new("compare")
        .with_auth_scheme(BearerAuthScheme::new())
        .with_auth_scheme_option_resolver(Some(StaticAuthSchemeOptionResolver::new(vec![
            scheme.clone(),
        ])))
        .with_identity_cache(Some(IdentityCache::lazy().build()))
        .with_identity_resolver(scheme, SharedIdentityResolver::new(identity));
    let mut config = Layer::new("compare");
    config.store_put(AuthSchemeOptionResolverParams::new(()));
    let plugin = StaticRuntimePlugin::new().with_config(config.freeze());
    SharedRuntimePlugin::new(plugin.with_runtime_components(components))
}

package dcosconfig

// Status is what became of a key.
type Status string

const (
	Mapped      Status = "mapped"      // it is in the file that was written
	BuiltIn     Status = "built in"    // the cluster does so without being told
	Obsolete    Status = "obsolete"    // what it set is not there, and not missed
	Unsupported Status = "unsupported" // the cluster cannot do what it asked for
)

// rule says what becomes of a key.
type rule struct {
	check check // of the value, as DC/OS would; nil: any
	// became and note are what the report says; became is what takes its place.
	became, note string
	status       Status
	// same are the values that ask for what the cluster does anyway: then the
	// key is built in. With none of them its status holds for all values.
	same []string
	// put moves the value into the conversion.
	put func(c *conversion, v value)
	// secret values are not shown.
	secret bool
}

// builtIn is a key of which the cluster honours some values only, without
// being told.
func builtIn(c check, note string, same ...string) rule {
	return rule{check: c, status: Unsupported, note: note, same: same}
}

// gone is a key of something that is not there any more.
func gone(c check, became, note string) rule {
	return rule{check: c, status: Obsolete, became: became, note: note}
}

// missing is a key of something that this release does not have; off are the
// values that did not ask for it.
func missing(c check, note string, off ...string) rule {
	return rule{check: c, status: Unsupported, note: note, same: off}
}

// fixed is a key that DC/OS computes itself: setting it was an error there.
func fixed() rule {
	return rule{status: Obsolete, note: "DC/OS computes it and refuses to have it set"}
}

func secret(r rule) rule {
	r.secret = true
	return r
}

// Reasons that many keys share.
const (
	noExhibitor = "masters keep their state in an etcd of their own; there is neither ZooKeeper nor Exhibitor"
	noOverlay   = "this release has host and bridge networks; overlay networks are not part of it"
	noCalico    = "this release has host and bridge networks; Calico is not part of it"
	noIPv6      = "clusters speak IPv4 between hosts"
	noAuth0     = "users and passwords are the cluster's own; no service outside is asked"
	noTelemetry = "nothing is sent to anybody"
	noDocker    = "containers are run by containerd, which is in the release; no Docker is needed"
	noLogSink   = "what tasks write stays in their sandboxes; the daemons write to the journal"
	noUI        = "the console has no such setting"
	noPkgpanda  = "a release is one directory that a link points at"
	noMesos     = "it tuned a program that is not there any more"
	noCloud     = "this command is for machines of your own"
	noRexray    = "volumes are local, or mounted by you"
	noProxy     = "the hosts need nothing from outside: releases and images come in a bundle"
	noIAM       = "enterprise feature: its service is not there"
	noVault     = "enterprise feature: there is no secret store"
)

// table has the rule of each key.
type table map[string]rule

func (t table) add(r rule, keys ...string) {
	for _, k := range keys {
		t[k] = r
	}
}

// rules are all keys of config.yaml from DC/OS 1.7 to 2.2, open and
// enterprise. Values in same are as DC/OS writes them: text, or JSON.
func rules() table {
	t := table{}
	t.cluster()
	t.ssh()
	t.detection()
	t.bootstrap()
	t.storage()
	t.network()
	t.router()
	t.users()
	t.tasks()
	t.console()
	t.clouds()
	t.computed()
	return t
}

// cluster rules are of the cluster and its hosts.
func (t table) cluster() {
	t["cluster_name"] = rule{status: Mapped, became: "the name of the cluster block", put: (*conversion).clusterName}
	t["master_list"] = rule{check: ipv4List, status: Mapped, became: `node_group "master"`, put: (*conversion).masterList}
	t["agent_list"] = rule{check: ipv4List, status: Mapped, became: `node_group "agent"`, put: (*conversion).agentList}
	t["public_agent_list"] = rule{check: ipv4List, status: Mapped, became: `node_group "public_agent"`, put: (*conversion).publicAgentList}
	t["num_masters"] = rule{check: oneOf("1", "3", "5", "7", "9").saying("Must have 1, 3, 5, 7, or 9 masters. Found %s."), status: Mapped, became: `node_group "master"`, note: "the hosts in it are counted", put: (*conversion).numMasters}
	t["resolvers"] = rule{check: resolverList, status: Mapped, became: "resolvers in the cluster block", put: (*conversion).resolvers}
	t["master_discovery"] = rule{check: oneOf("static", "master_http_loadbalancer", "vrrp"), status: Obsolete, became: `node_group "master"`,
		note: "masters are listed; agents follow changes of the list by themselves, so no load balancer or virtual address is needed", put: (*conversion).discovery}
	t["superuser_username"] = rule{status: Mapped, became: "admin_user in the cluster block", put: (*conversion).adminUser}
	t["superuser_password_hash"] = secret(rule{status: Obsolete, became: "a generated password, or admin_password",
		note: "a sha512-crypt hash cannot be turned into the cluster's own; set DCOS_VAR_admin_password to keep the password", put: (*conversion).adminPassword})
	t["superuser_service_account_uid"] = missing(nil, "service accounts are not part of this release; tools log in as a user", "")
	t["superuser_service_account_public_key"] = missing(nil, "service accounts are not part of this release; tools log in as a user", "")
}

// ssh rules say how the installer logs in, up to 1.11.
func (t table) ssh() {
	t["ssh_user"] = rule{status: Mapped, became: "user in the provider block", put: (*conversion).sshUser}
	t["ssh_port"] = rule{check: number(1, 32000), status: Mapped, became: "port in the provider block", put: (*conversion).sshPort}
	t["ssh_key_path"] = rule{status: Mapped, became: "key_file in the provider block", put: (*conversion).sshKey}
	t["ssh_parallelism"] = rule{check: number(1, 100), status: Mapped, became: "parallel in the provider block", put: (*conversion).sshParallel}
	t["process_timeout"] = gone(number(1, 1<<31), "", "steps end when they are done, and say how long they take; timeout in the provider block bounds one connection")
	t["extra_ssh_options"] = missing(nil, "the installer speaks SSH itself; bastion hosts, ports and keys are set in the provider block", "")
}

// detection rules say how the installer finds out about hosts.
func (t table) detection() {
	t.add(gone(nil, "the address of each host in its node_group", "addresses are written down, and preflight checks that each host has its own"),
		"ip_detect_filename", "ip_detect_contents", "ip_detect_path", "ip6_detect_filename", "ip6_detect_contents")
	t.add(gone(nil, "", "nobody asks for the public address of a host"), "ip_detect_public_filename", "ip_detect_public_contents")
	t.add(rule{status: Obsolete, became: "attributes of the hosts", note: "write region and zone as attributes of each host: attributes = { zone = \"a\" }"},
		"fault_domain_detect_contents", "fault_domain_detect_filename")
	t["fault_domain_enabled"] = rule{check: boolean, status: Obsolete, became: "attributes of the hosts", note: "constraints match attributes: attributes = { zone = \"a\" }"}
}

// bootstrap rules are of the bootstrap machine.
func (t table) bootstrap() {
	t["bootstrap_url"] = gone(bootstrapURL, "dcos-install apply, or genconf serve", "the installer brings the release over SSH; where that is forbidden, dcos-install genconf serve is the bootstrap server")
	t.add(gone(nil, "", noPkgpanda), "bootstrap_tmp_dir", "bootstrap_variant", "bootstrap_id", "dcos_variant_override", "package_names", "cluster_packages", "temporary_directory", "profile_symlink_source", "profile_symlink_target")
	t["platform"] = gone(nil, `provider "onprem"`, "")
	t["check_time"] = builtIn(boolean, "preflight always compares the hosts' clocks; ignore the check by its id in a preflight block", "true")
	t["custom_checks"] = missing(nil, "checks of your own are apps with health checks, or your monitoring's", "{}", "")
	t.add(gone(nil, "dcos-install preflight", ""), "check_config", "check_search_path", "check_ld_library_path")
	t["dcos_version"] = gone(nil, "release in the cluster block", "the bundle says which release it is")
}

// storage rules say where masters kept their state.
func (t table) storage() {
	t["exhibitor_storage_backend"] = gone(oneOf("static", "zookeeper", "aws_s3", "azure", "shared_filesystem", "agent_only_group_no_exhibitor"), "", noExhibitor)
	t.add(gone(nil, "", noExhibitor), "exhibitor_address", "exhibitor_zk_hosts", "exhibitor_zk_path", "exhibitor_fs_config_dir", "exhibitor_explicit_keys", "exhibitor_port",
		"exhibitor_bootstrap_ca_url", "exhibitor_tls_enabled", "exhibitor_tls_required", "exhibitor_azure_account_name", "exhibitor_azure_prefix", "exhibitor_static_ensemble",
		"aws_region", "s3_bucket", "s3_prefix", "aws_access_key_id", "zk_client_port", "zk_super_digest_jwt", "master_quorum")
	t.add(secret(gone(nil, "", noExhibitor)), "exhibitor_admin_password", "exhibitor_azure_account_key", "aws_secret_access_key", "zk_super_credentials", "zk_master_credentials", "zk_agent_credentials")
	t.add(gone(nil, "", "agents follow the list of masters; a virtual address for people is a load balancer's or your network's business"),
		"keepalived_router_id", "keepalived_interface", "keepalived_virtual_ipaddress")
	t.add(secret(gone(nil, "", "there is no keepalived")), "keepalived_pass")
	t["master_external_loadbalancer"] = gone(nil, "", "the console and the CLI work through any load balancer that passes TLS on; the CLI pins the cluster's CA, whatever the address")
}

// network rules are of names and networks.
func (t table) network() {
	t["dns_search"] = missing(dnsSearch, "hosts have no search domains; use full names", "")
	t["dns_forward_zones"] = missing(nil, "every name outside the cluster is asked of resolvers; let those forward the zones", "{}", "[]", "")
	t.add(builtIn(nil, "DNS listens on 198.51.100.1, the container bridge and the host's own address", "[]", `["198.51.100.4"]`, ""), "dns_bind_ip_blacklist", "dns_bind_ip_reserved")
	t["master_dns_bindall"] = builtIn(boolean, "masters answer DNS queries on their own address", "true")
	t["mesos_dns_ip_sources"] = builtIn(nil, "names lead to the address that a task is reached by", `["host","netinfo"]`, `["netinfo","host"]`)
	t["mesos_dns_set_truncate_bit"] = builtIn(boolean, "long answers are cut, and asked for again over TCP", "true")
	t.add(gone(nil, "", "DNS is part of dcosd"), "mesos_dns_resolvers_str")
	t["enable_lb"] = builtIn(boolean, "named VIPs are always there", "true")
	t.add(builtIn(ipv4, "named VIPs are in 11.0.0.0/8", "11.0.0.0"), "dcos_l4lb_min_named_ip", "minuteman_min_named_ip", "dcos_minuteman_min_named_ip")
	t.add(builtIn(ipv4, "named VIPs are in 11.0.0.0/8", "11.255.255.255"), "dcos_l4lb_max_named_ip", "minuteman_max_named_ip", "dcos_minuteman_max_named_ip")
	t.add(gone(nil, "", noIPv6), "dcos_l4lb_min_named_ip6", "dcos_l4lb_max_named_ip6", "dcos_overlay_network6_default_name")
	t.add(missing(boolean, noIPv6, "false"), "dcos_l4lb_enable_ipv6", "enable_mesos_ipv6_discovery")
	t["enable_ipv6"] = gone(boolean, "", noIPv6)
	t.add(gone(nil, "", "the load balancer is the kernel's nftables"), "dcos_l4lb_enable_ipset", "dcos_l4lb_forward_metrics", "minuteman_forward_metrics")
	t.add(gone(nil, "", "dcos-net is not there; its work is done by dcosd"), "dcos_net_cluster_identity", "dcos_net_push_ops_timeout", "dcos_net_rest_enable", "dcos_net_watchdog", "dcos_cni_data_dir", "mesos_cni_root_dir_persist")
	t["dcos_ucr_default_bridge_network_name"] = builtIn(nil, "a container/bridge network needs no name", "mesos-bridge")
	t["dcos_ucr_default_bridge_subnet"] = builtIn(nil, "containers of the bridge network are in 172.31.254.0/24 of each host", "172.31.254.0/24")
	t["dcos_overlay_enable"] = missing(boolean, noOverlay, "false")
	t["dcos_overlay_network"] = missing(overlay, noOverlay)
	t.add(missing(nil, noOverlay), "dcos_overlay_network_default_name", "dcos_overlay_network_json")
	t["dcos_overlay_mtu"] = gone(number(552, 65535), "", noOverlay)
	t["dcos_overlay_config_attempts"] = gone(number(0, 10), "", noOverlay)
	t["calico_enabled"] = missing(boolean, noCalico, "false")
	t["calico_vxlan_port"] = gone(number(1025, 65535), "", noCalico)
	t.add(gone(number(552, 65535), "", noCalico), "calico_ipinip_mtu", "calico_veth_mtu", "calico_vxlan_mtu")
	t.add(gone(nil, "", noCalico), "calico_network_cidr", "calico_vxlan_enabled", "calico_vxlan_vni")
	t.add(missing(boolean, noProxy, "false"), "use_proxy")
	t.add(gone(nil, "", noProxy), "http_proxy", "https_proxy", "no_proxy")
}

// router rules are of Admin Router.
func (t table) router() {
	t.add(missing(boolean, "the gateway speaks TLS 1.2 and 1.3", "false"), "adminrouter_tls_1_0_enabled", "adminrouter_tls_1_1_enabled")
	t["adminrouter_tls_1_2_enabled"] = builtIn(boolean, "the gateway speaks TLS 1.2 and 1.3", "true")
	t["adminrouter_tls_cipher_suite"] = builtIn(nil, "the gateway has Go's cipher suites, which are the safe ones", "")
	t["adminrouter_x_frame_options"] = builtIn(frameOptions, "pages of the gateway may not be framed", "DENY", "deny")
	t["adminrouter_grpc_proxy_port"] = gone(number(1, 65535), "", "nothing speaks gRPC through the gateway")
	t["auth_cookie_secure_flag"] = builtIn(boolean, "the session cookie is sent over TLS only", "true", "false")
	t["adminrouter_auth_enabled"] = builtIn(nil, "everything needs a user", "true")
	t.add(gone(nil, "", noMesos), "adminrouter_auth_cache_enabled", "permissions_cache_ttl_seconds")
}

// users rules are of users and what they may do.
func (t table) users() {
	t["oauth_enabled"] = rule{check: boolean, status: Unsupported, became: "users of the cluster", note: "everything needs a user and a password; they are the cluster's own", same: []string{"true"}}
	t.add(gone(nil, "users of the cluster", noAuth0), "oauth_available", "oauth_auth_host", "oauth_auth_redirector", "oauth_client_id", "oauth_issuer_url")
	t["security"] = missing(oneOf("permissive", "strict", "disabled"), "between hosts everything is TLS with certificates, as in strict; permissions per user are not part of this release", "permissive", "disabled")
	t["license_key_contents"] = secret(gone(nil, "", "there is no licence to enter"))
	t.add(secret(gone(nil, "", "there is no licence to enter")), "customer_key")
	t.add(missing(nil, "the cluster makes a CA of its own; put your certificate on a load balancer in front"), "ca_certificate_path", "ca_certificate_chain_path")
	t.add(secret(missing(nil, "the cluster makes a CA of its own; put your certificate on a load balancer in front")), "ca_certificate_key_path")
	t.add(gone(nil, "", noIAM), "bouncer_expiration_auth_token_days", "iam_ldap_sync_interval", "bouncer_user_search_limit", "bouncer_group_search_limit", "iam_migration_extra_options")
	t.add(gone(nil, "", noVault), "vault_config", "secrets_backend")
}

// tasks rules are of tasks and agents.
func (t table) tasks() {
	t["mesos_agent_work_dir"] = builtIn(nil, "agents work in /var/lib/dcos/agent", "/var/lib/mesos/slave", "/var/lib/dcos/agent")
	t["mesos_master_work_dir"] = builtIn(nil, "masters work in /var/lib/dcos/master", "/var/lib/dcos/mesos/master", "/var/lib/dcos/master")
	t["mesos_recovery_timeout"] = gone(duration, "", "tasks outlive a restart of their agent for as long as it takes")
	t["mesos_container_log_sink"] = builtIn(oneOf("fluentbit", "journald", "logrotate", "fluentbit+logrotate", "journald+logrotate"), noLogSink, "logrotate", "fluentbit+logrotate")
	t["mesos_logrotate_file_size_mb"] = gone(number(1, 1<<31), "", noLogSink)
	t["mesos_log_retention_mb"] = gone(number(1024, 1<<31), "", noLogSink)
	t["mesos_max_completed_frameworks"] = gone(number(0, 1<<31), "", "masters remember 50 frameworks that ended")
	t["mesos_max_completed_tasks_per_framework"] = gone(number(0, 1<<31), "", "masters remember 1,000 tasks that ended of each framework")
	t.add(builtIn(boolean, "tasks are held to their CPUs", "true"), "mesos_cgroups_enable_cfs")
	t["mesos_default_container_shm_size"] = missing(shmSize, "containers have the runtime's default", "")
	t["mesos_disallow_sharing_agent_ipc_namespace"] = missing(boolean, "containers never share the IPC namespace of the agent", "false", "true")
	t.add(gone(boolean, "", noMesos), "mesos_docker_volume_chown", "mesos_http_executor_domain_sockets", "enable_mesos_input_plugin")
	t.add(missing(nil, "seccomp profiles are not part of this release; containers run with the runtime's capabilities"), "mesos_seccomp_enabled", "mesos_seccomp_profile_name")
	t["gpus_are_scarce"] = gone(boolean, "", "GPUs are not part of this release")
	t["enable_gpu_isolation"] = gone(boolean, "", "GPUs are not part of this release")
	t.add(gone(oneOf("restricted", "unrestricted", ""), "", "GPUs are not part of this release"), "marathon_gpu_scheduling_behavior", "metronome_gpu_scheduling_behavior")
	t["marathon_new_group_enforce_role"] = missing(oneOf("top", "off", ""), "groups do not enforce roles", "off", "")
	t["marathon_java_args"] = gone(nil, "", "the orchestrator is part of dcosd; there is no JVM")
	t["weights"] = missing(nil, "roles have equal weights in this release", "")
	t["log_offers"] = gone(boolean, "", "offers are counted in the master's metrics")
	t.add(gone(nil, "", "sandboxes of ended tasks are removed when the disk fills up"), "gc_delay")
	t.add(gone(nil, "", noDocker), "docker_remove_delay", "docker_stop_timeout", "enable_docker_gc", "dcos_remove_dockercfg_enable", "docker_skip_interface")
	t["cluster_docker_credentials"] = secret(missing(nil, "name credentials in the app (fetch), or put images into the bundle", "{}", ""))
	t.add(gone(nil, "", noDocker), "cluster_docker_credentials_dcos_owned", "cluster_docker_credentials_write_to_etc")
	t["cluster_docker_credentials_enabled"] = missing(boolean, "name credentials in the app (fetch), or put images into the bundle", "false")
	t["cluster_docker_registry_url"] = missing(nil, "write the registry into each image's name", "")
	t.add(missing(nil, noRexray, "{}", ""), "rexray_config")
	t.add(missing(nil, noRexray, "", "empty", "file"), "rexray_config_preset", "rexray_config_method", "rexray_config_filename")
	t["roles"] = gone(nil, "", "public agents offer their resources to the role slave_public, as always")
}

// console rules say what was reported to Mesosphere, and how the UI looked.
func (t table) console() {
	t.add(gone(boolean, "", noTelemetry), "telemetry_enabled", "ui_tracking", "intercom_enabled")
	t.add(missing(nil, noUI, "false", "", "null"), "ui_banner")
	t.add(gone(nil, "", noUI), "ui_banner_background_color", "ui_banner_dismissible", "ui_banner_footer_content", "ui_banner_foreground_color", "ui_banner_header_content", "ui_banner_header_title", "ui_banner_image_path", "ui_update_enabled")
	t["diagnostics_bundles_dir"] = gone(nil, "dcos-install support-bundle", "")
	t.add(gone(nil, "", "packages come from a bundle; there is no Cosmos to configure"), "cosmos_config", "cosmos_staged_package_storage_uri_flag", "cosmos_package_storage_uri_flag", "package_storage_uri", "staged_package_storage_uri")
}

// clouds rules are of templates for clouds.
func (t table) clouds() {
	t.add(gone(nil, "", noCloud), "aws_template_upload", "aws_template_storage_bucket", "aws_template_storage_bucket_path", "aws_template_storage_bucket_path_autocreate",
		"aws_template_storage_region_name", "aws_template_storage_access_key_id", "provider", "os_type", "channel_commit_path", "channel_name")
	t.add(secret(gone(nil, "", noCloud)), "aws_template_storage_secret_access_key")
}

// computed rules are of keys that nobody sets.
func (t table) computed() {
	t.add(fixed(), "custom_auth", "dns_bind_ip_blacklist_json", "resolvers_str", "dcos_image_commit", "mesos_dns_port", "mesos_log_retention_count", "mesos_log_directory_max_files",
		"mesos_agent_port", "mesos_agent_log_file", "mesos_master_port", "mesos_master_log_file", "marathon_port", "dcos_variant", "dcos_gen_resolvconf_search_str", "curly_pound",
		"exhibitor_admin_password_enabled", "ui_branding", "ui_external_links", "ui_networking", "ui_organization", "ui_telemetry_metadata",
		"dcos_l4lb_min_named_ip_erltuple", "dcos_l4lb_max_named_ip_erltuple", "dcos_l4lb_min_named_ip6_erltuple", "dcos_l4lb_max_named_ip6_erltuple", "mesos_isolation",
		"has_mesos_seccomp_profile_name", "has_mesos_default_container_shm_size", "mesos_hooks", "use_mesos_hooks", "rexray_config_contents", "no_proxy_final",
		"cluster_docker_credentials_path", "cluster_docker_registry_enabled", "has_master_external_loadbalancer", "profile_symlink_target_dir", "fair_sharing_excluded_resource_names",
		"check_config_contents", "adminrouter_tls_version_override", "adminrouter_tls_cipher_override", "licensing_enabled", "metronome_port",
		"has_metronome_gpu_scheduling_behavior", "has_marathon_new_group_enforce_role", "has_marathon_gpu_scheduling_behavior", "_superuser_service_account_public_key_json")
}

# A Cloud Run service whose app calls private services through the proxy beside it, the account as
# which it calls, and that account's permissions.

locals {
  config      = yamlencode(var.config)
  config_size = length(local.config)
  account_id  = "run-${var.name}"
  account     = var.service_account == null ? google_service_account.caller[0].email : var.service_account.email
  admin_port  = 9090
  config_path = "/etc/cloud-run-auth-proxy"

  # The probes come from outside of the instance's network namespace, so loopback would not do; Cloud
  # Run lets nobody else reach a sidecar's port.
  admin_env  = { AUTH_PROXY_ADMIN = "0.0.0.0:${local.admin_port}" }
  config_env = var.config_in_secret ? {} : { AUTH_PROXY_CONFIG_YAML = local.config }
}

resource "google_service_account" "caller" {
  count = var.service_account == null ? 1 : 0

  project      = var.project
  account_id   = local.account_id
  display_name = "Cloud Run service ${var.name}"

  lifecycle {
    precondition {
      condition     = length(local.account_id) >= 6 && length(local.account_id) <= 30
      error_message = "The account's name would be ${local.account_id}, but 6 to 30 characters are allowed: give service_account."
    }
  }
}

resource "google_cloud_run_v2_service_iam_member" "invoker" {
  for_each = var.calls

  project  = coalesce(each.value.project, var.project)
  location = coalesce(each.value.location, var.location)
  name     = each.key
  role     = "roles/run.invoker"
  member   = "serviceAccount:${local.account}"
}

resource "google_secret_manager_secret" "config" {
  count = var.config_in_secret ? 1 : 0

  project   = var.project
  secret_id = "${var.name}-auth-proxy"

  replication {
    auto {}
  }
}

resource "google_secret_manager_secret_version" "config" {
  count = var.config_in_secret ? 1 : 0

  secret      = google_secret_manager_secret.config[0].id
  secret_data = local.config
}

resource "google_secret_manager_secret_iam_member" "config" {
  count = var.config_in_secret ? 1 : 0

  project   = var.project
  secret_id = google_secret_manager_secret.config[0].secret_id
  role      = "roles/secretmanager.secretAccessor"
  member    = "serviceAccount:${local.account}"
}

resource "google_cloud_run_v2_service" "service" {
  project             = var.project
  location            = var.location
  name                = var.name
  ingress             = var.ingress
  deletion_protection = var.deletion_protection

  template {
    service_account = local.account

    scaling {
      min_instance_count = var.scaling.min
      max_instance_count = var.scaling.max
    }

    # The one container with a port gets the requests (and $PORT).
    containers {
      name  = "app"
      image = var.image
      # The app starts when the proxy's startup probe has succeeded.
      depends_on = ["auth-proxy"]

      ports {
        container_port = var.port
      }

      resources {
        limits = var.resources
      }

      dynamic "env" {
        for_each = var.env

        content {
          name  = env.key
          value = env.value
        }
      }
    }

    containers {
      name  = "auth-proxy"
      image = var.proxy_image

      resources {
        limits = var.proxy_resources
      }

      dynamic "env" {
        for_each = merge(local.admin_env, local.config_env)

        content {
          name  = env.key
          value = env.value
        }
      }

      dynamic "volume_mounts" {
        for_each = var.config_in_secret ? [local.config_path] : []

        content {
          name       = "config"
          mount_path = volume_mounts.value
        }
      }

      # Tokens are fetched before /startup says 200.  One second instead of the default ten: a cold
      # start waits for this.
      startup_probe {
        period_seconds    = 1
        timeout_seconds   = 1
        failure_threshold = 30

        http_get {
          path = "/startup"
          port = local.admin_port
        }
      }

      liveness_probe {
        period_seconds  = 30
        timeout_seconds = 5

        http_get {
          path = "/liveness"
          port = local.admin_port
        }
      }
    }

    dynamic "volumes" {
      for_each = google_secret_manager_secret_version.config

      content {
        name = "config"

        secret {
          secret = google_secret_manager_secret.config[0].secret_id

          # By number, so that another configuration is another revision.
          items {
            version = volumes.value.version
            path    = "config.yaml"
          }
        }
      }
    }

    dynamic "vpc_access" {
      for_each = var.network == null ? [] : [var.network]

      content {
        egress = vpc_access.value.egress

        network_interfaces {
          network    = vpc_access.value.network
          subnetwork = vpc_access.value.subnetwork
        }
      }
    }
  }

  lifecycle {
    precondition {
      # Terraform shows the values in a condition that fails: the size, rather than all of it.
      condition     = var.config_in_secret || local.config_size <= 32768
      error_message = "An environment variable holds 32 KB at most: set config_in_secret."
    }
  }

  # Without the one it cannot start, without the other its first calls are refused.
  depends_on = [
    google_secret_manager_secret_iam_member.config,
    google_cloud_run_v2_service_iam_member.invoker,
  ]
}

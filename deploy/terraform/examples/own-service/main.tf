# For a service that Terraform has already: what the proxy needs in it, and what its account needs.

variable "project" {
  type = string
}

variable "tag" {
  description = "Of both images."
  type        = string
}

locals {
  images = "europe-west1-docker.pkg.dev/${var.project}/shop"
}

provider "google" {
  project = var.project
  region  = "europe-west1"
}

resource "google_service_account" "shop" {
  account_id = "run-shop"
}

resource "google_cloud_run_v2_service_iam_member" "orders" {
  location = "europe-west1"
  name     = "orders"
  role     = "roles/run.invoker"
  member   = google_service_account.shop.member
}

resource "google_cloud_run_v2_service" "shop" {
  name     = "shop"
  location = "europe-west1"

  template {
    service_account = google_service_account.shop.email

    containers {
      name  = "app"
      image = "${local.images}/shop:${var.tag}"
      # New: the app starts after the proxy, and calls it.
      depends_on = ["auth-proxy"]

      ports {
        container_port = 8080
      }

      env {
        name  = "ORDERS_URL"
        value = "http://localhost:8081"
      }
    }

    # New: the proxy.
    containers {
      name  = "auth-proxy"
      image = "${local.images}/cloud-run-auth-proxy:${var.tag}"

      resources {
        limits = { cpu = "1", memory = "256Mi" }
      }

      env {
        name  = "AUTH_PROXY_ADMIN"
        value = "0.0.0.0:9090"
      }

      env {
        name = "AUTH_PROXY_CONFIG_YAML"
        value = yamlencode({
          sigterm_delay = "3s"
          routes        = { orders = { service = "orders" } }
        })
      }

      startup_probe {
        period_seconds    = 1
        timeout_seconds   = 1
        failure_threshold = 30

        http_get {
          path = "/startup"
          port = 9090
        }
      }
    }
  }
}

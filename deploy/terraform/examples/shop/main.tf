# A shop that calls orders, in its own region, and billing, in another one.

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
}

module "shop" {
  source = "../.."

  project     = var.project
  location    = "europe-west1"
  name        = "shop"
  image       = "${local.images}/shop:${var.tag}"
  proxy_image = "${local.images}/cloud-run-auth-proxy:${var.tag}"

  env = {
    ORDERS_URL  = "http://localhost:8081/orders"
    BILLING_URL = "http://localhost:8081/billing"
  }

  calls = {
    orders  = {}
    billing = { location = "europe-west4" }
  }

  config = {
    # SIGTERM reaches both containers at once: keep serving while the app finishes its own calls.
    sigterm_delay = "3s"
    routes = {
      orders  = { path = "/orders", strip_path = true, service = "orders" }
      billing = { path = "/billing", strip_path = true, service = "billing.europe-west4" }
    }
  }
}

output "uri" {
  value = module.shop.uri
}

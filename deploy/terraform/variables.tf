variable "project" {
  description = "The project of the service and its account."
  type        = string
}

variable "location" {
  description = "The region of the service."
  type        = string
}

variable "name" {
  description = "The service's name."
  type        = string
}

variable "image" {
  description = "The app's image."
  type        = string
}

variable "port" {
  description = "The port at which the app takes requests."
  type        = number
  default     = 8080
}

variable "env" {
  description = "The app's environment. It calls the proxy where config says: http://localhost:8081 by default."
  type        = map(string)
  default     = {}
}

variable "resources" {
  description = "Limits of the app's container."
  type        = map(string)
  default     = { cpu = "1", memory = "512Mi" }
}

variable "proxy_image" {
  description = "The image of the proxy."
  type        = string
}

variable "proxy_resources" {
  description = "Limits of the proxy's container."
  type        = map(string)
  default     = { cpu = "1", memory = "256Mi" }
}

variable "config" {
  description = "The proxy's configuration, as docs/configuration.md describes it; admin is the module's."
  type        = any

  validation {
    condition     = can(keys(var.config.routes))
    error_message = "config needs routes."
  }

  validation {
    condition     = !can(var.config.admin)
    error_message = "The module sets admin itself, where Cloud Run's probes reach it."
  }
}

variable "config_in_secret" {
  description = "Whether the configuration is a secret, mounted as a file, rather than an environment variable."
  type        = bool
  default     = false
}

variable "calls" {
  description = "The services that are called, each by its name; their location and project where they differ."
  type = map(object({
    location = optional(string)
    project  = optional(string)
  }))
}

variable "service_account" {
  description = "The account that calls, as an object so that it may come from the same plan. Without one, the module makes run-NAME."
  type        = object({ email = string })
  default     = null
}

variable "ingress" {
  description = "Who reaches the service: INGRESS_TRAFFIC_ALL, …_INTERNAL_ONLY or …_INTERNAL_LOAD_BALANCER."
  type        = string
  default     = "INGRESS_TRAFFIC_ALL"
}

variable "scaling" {
  description = "The least and the greatest number of instances."
  type = object({
    min = optional(number, 0)
    max = optional(number)
  })
  default = {}
}

variable "network" {
  description = "Direct VPC egress, which services with internal ingress need: ALL_TRAFFIC or PRIVATE_RANGES_ONLY."
  type = object({
    network    = string
    subnetwork = string
    egress     = optional(string, "ALL_TRAFFIC")
  })
  default = null
}

variable "deletion_protection" {
  description = "Whether Terraform refuses to delete the service."
  type        = bool
  default     = true
}

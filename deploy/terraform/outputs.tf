output "uri" {
  description = "The service's URL."
  value       = google_cloud_run_v2_service.service.uri
}

output "service_account" {
  description = "E-mail address of the account that calls."
  value       = local.account
}

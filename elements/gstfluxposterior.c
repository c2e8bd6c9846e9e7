/* gstfluxposterior.c: pictures to posteriors, through the cache.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "elements/gstfluxposterior.h"

#include "elements/gstfluxcommon.h"
#include "flux/files/latent-cache.h"
#include "flux/model.h"

struct _GstFluxPosterior {
  GstElement *element; /* not owned */
  gchar *model, *device, *fingerprint;
  FluxVaeInfo info;
  FluxLatentCache *cache;
  fx_dtype compute; /* of the property compute-dtype */
  fx_backend *backend;
  FluxVae *vae;
  gint cancel; /* atomic */
  gboolean store_failed;
  GHashTable *damaged; /* warnings that were posted */
  guint last_miss_epoch;
  GMutex lock;
  guint64 hits, misses; /* lock */
};

GstFluxPosterior *
gst_flux_posterior_new (GstElement *element, const gchar *model,
    const gchar *cache_location, const gchar *device, fx_dtype compute, GError **error)
{
  GstFluxPosterior *self = g_new0 (GstFluxPosterior, 1);

  g_mutex_init (&self->lock);
  self->element = element;
  self->model = g_strdup (model);
  self->device = g_strdup (device);
  self->compute = compute;
  self->damaged = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL);
  if (!flux_vae_read_info (model, &self->info, error) ||
      (self->fingerprint = flux_vae_fingerprint (model, error)) == NULL ||
      (self->cache = flux_latent_cache_open (cache_location, self->fingerprint, error)) ==
          NULL) {
    gst_flux_posterior_free (self);
    return NULL;
  }
  return self;
}

void
gst_flux_posterior_free (GstFluxPosterior *self)
{
  gst_flux_posterior_free_weights (self);
  if (self->cache != NULL)
    flux_latent_cache_free (self->cache);
  g_hash_table_unref (self->damaged);
  g_free (self->fingerprint);
  g_free (self->device);
  g_free (self->model);
  g_mutex_clear (&self->lock);
  g_free (self);
}

void
gst_flux_posterior_cancel (GstFluxPosterior *self)
{
  g_atomic_int_set (&self->cancel, TRUE);
}

gboolean
gst_flux_posterior_is_loaded (GstFluxPosterior *self)
{
  return self->vae != NULL;
}

void
gst_flux_posterior_free_weights (GstFluxPosterior *self)
{
  g_clear_pointer (&self->vae, flux_vae_free);
  g_clear_pointer (&self->backend, flux_backend_free);
}

void
gst_flux_posterior_get_counts (GstFluxPosterior *self, guint64 *hits, guint64 *misses)
{
  g_mutex_lock (&self->lock);
  *hits = self->hits;
  *misses = self->misses;
  g_mutex_unlock (&self->lock);
}

static void
count (GstFluxPosterior *self, guint64 *counter)
{
  g_mutex_lock (&self->lock);
  (*counter)++;
  g_mutex_unlock (&self->lock);
}

static gboolean
load_weights (GstFluxPosterior *self, GError **error)
{
  GstFluxProgress progress;
  GError *failure = NULL;

  if (self->vae != NULL)
    return TRUE;
  GST_INFO_OBJECT (self->element, "loading the VAE of %s", self->model);
  gst_flux_progress_init (&progress, self->element, "open", &self->cancel);
  self->backend =
      gst_flux_backend_new (self->element, self->device, self->compute, &failure);
  if (self->backend != NULL)
    self->vae = flux_vae_load (self->model, self->backend, FLUX_VAE_ENCODER,
        gst_flux_progress_update, &progress, &failure);
  gst_flux_progress_end (&progress, "VAE", failure);
  if (self->vae != NULL)
    return TRUE;
  gst_flux_posterior_free_weights (self);
  g_propagate_error (error, failure);
  return FALSE;
}

static GBytes *
encode (GstFluxPosterior *self, const GstVideoFrame *frame, GError **error)
{
  gint width = GST_VIDEO_FRAME_WIDTH (frame), height = GST_VIDEO_FRAME_HEIGHT (frame);
  gsize size = sizeof (float) * 2 * self->info.latent_channels *
               (width / self->info.downscale) * (height / self->info.downscale);
  float *moments;

  if (!load_weights (self, error))
    return NULL;
  moments = g_try_malloc (size);
  if (moments == NULL) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_NO_SPACE,
        "Out of memory for the posterior of a picture of %dx%d pixels.", width, height);
    return NULL;
  }
  if (!flux_vae_encode (self->vae, GST_VIDEO_FRAME_PLANE_DATA (frame, 0), width, height,
          GST_VIDEO_FRAME_PLANE_STRIDE (frame, 0), moments, error)) {
    g_free (moments);
    return NULL;
  }
  return g_bytes_new_take (moments, size);
}

/* A full disk must not stop the run: the posterior is there, only not kept. */
static void
store (GstFluxPosterior *self, const FluxLatentId *id, GBytes *moments)
{
  GError *error = NULL;

  if (self->store_failed ||
      flux_latent_cache_store (self->cache, id, moments, self->info.latent_channels,
          id->height / self->info.downscale, id->width / self->info.downscale, &error))
    return;
  self->store_failed = TRUE;
  g_prefix_error (&error, "Going on without writing to the cache. ");
  gst_flux_post_warning (self->element, error);
}

/* Another size than this VAE gives is a damaged entry. */
static gboolean
has_size (GstFluxPosterior *self, const FluxLatentId *id, int channels, int h, int w)
{
  return channels == self->info.latent_channels &&
         h == id->height / self->info.downscale && w == id->width / self->info.downscale;
}

/* Once a file, also when it cannot be replaced and the stream loops. Takes error. */
static void
warn_damaged (GstFluxPosterior *self, GError *error)
{
  if (g_hash_table_add (self->damaged, g_strdup (error->message)))
    gst_flux_post_warning (self->element, error);
  else
    g_error_free (error);
}

GBytes *
gst_flux_posterior_get (GstFluxPosterior *self, const GstVideoFrame *frame,
    const GstFluxSample *sample, const gchar *rgb_hash, GError **error)
{
  gchar *view = gst_flux_sample_dup_view (sample), *crop;
  FluxLatentId id = {0};
  GBytes *moments;
  int channels, h, w;
  GError *failure = NULL;

  /* The pixels too, so that behind an element that the view does not know of (say,
   * videobalance) a picture is never given another's posterior. */
  crop = g_strdup_printf ("%s rgb=%s", view, rgb_hash);
  id.key = sample->key;
  id.width = GST_VIDEO_FRAME_WIDTH (frame);
  id.height = GST_VIDEO_FRAME_HEIGHT (frame);
  id.crop = crop;
  id.fingerprint = self->fingerprint;

  moments = flux_latent_cache_lookup (self->cache, &id, &channels, &h, &w, &failure);
  if (moments != NULL && !has_size (self, &id, channels, h, w))
    g_clear_pointer (&moments, g_bytes_unref);
  if (g_error_matches (failure, FLUX_ERROR, FLUX_ERROR_FORMAT))
    warn_damaged (self, g_steal_pointer (&failure));
  if (moments != NULL) {
    count (self, &self->hits);
    /* A whole epoch without a miss: the rest of a looping stream is cached. */
    if (sample->epoch > self->last_miss_epoch + 1)
      gst_flux_posterior_free_weights (self);
  } else if (failure == NULL) {
    moments = encode (self, frame, &failure);
    if (moments != NULL) {
      store (self, &id, moments);
      self->last_miss_epoch = sample->epoch;
      count (self, &self->misses);
    }
  }
  if (failure != NULL && sample->filename != NULL)
    g_prefix_error (&failure, "'%s': ", sample->filename);
  if (failure != NULL)
    g_propagate_error (error, failure);
  g_free (crop);
  g_free (view);
  return moments;
}

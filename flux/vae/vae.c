/* flux/vae/vae.c: loading, encoding and decoding. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#include "flux/vae/vae-private.h"

#include "flux/error.h"

enum { MAX_SIDE = 1 << 15 /* pixels */ };

/* The VAE's folder: dir/vae, or dir itself. */
static char *
find_folder (const char *dir)
{
  g_autofree char *sub = g_build_filename (dir, "vae", NULL);

  if (g_file_test (sub, G_FILE_TEST_IS_DIR))
    return g_steal_pointer (&sub);
  return g_strdup (dir);
}

static FluxVaeInfo
info_of (const FluxVaeConfig *c)
{
  return (FluxVaeInfo){.latent_channels = c->latent_channels,
      .downscale = 1 << (c->n_blocks - 1),
      .sample_size = c->sample_size,
      .scaling_factor = c->scaling_factor,
      .shift_factor = c->shift_factor};
}

gboolean
flux_vae_read_info (const char *dir, FluxVaeInfo *info, GError **error)
{
  g_autofree char *folder = find_folder (dir);
  FluxVaeConfig config;

  if (!flux_vae_config_read (folder, &config, error))
    return FALSE;
  *info = info_of (&config);
  return TRUE;
}

char *
flux_vae_fingerprint (const char *dir, GError **error)
{
  g_autofree char *folder = find_folder (dir);
  g_autoptr (FluxSafetensors) file = flux_safetensors_open (folder, error);

  return file != NULL ? flux_safetensors_fingerprint (file) : NULL;
}

gboolean
flux_vae_check (const char *dir, GError **error)
{
  g_autofree char *folder = find_folder (dir);
  g_autoptr (FluxSafetensors) file = flux_safetensors_open (folder, error);

  return file != NULL;
}

static gboolean
load_parts (FluxLoader *loader, gpointer model, GError **error)
{
  FluxVae *self = model;

  if (self->parts & FLUX_VAE_ENCODER &&
      !flux_vae_load_encoder (loader, &self->config, &self->encoder, error))
    return FALSE;
  return !(self->parts & FLUX_VAE_DECODER) ||
         flux_vae_load_decoder (loader, &self->config, &self->decoder, error);
}

static FluxVae *
vae_new (fx_backend *b, FluxVaeParts parts)
{
  FluxVae *self = g_new0 (FluxVae, 1);

  self->backend = b;
  self->dtype = fx_residual_dtype (b->compute);
  self->parts = parts;
  fx_arena_init (&self->weights, b, "VAE weights");
  fx_arena_init (&self->work, b, "VAE work");
  return self;
}

/* Takes the VAE over. */
static FluxVae *
load_from (FluxVae *vae, FluxLoader *loader, GError **error)
{
  g_autoptr (FluxVae) self = vae;

  loader->backend = self->backend;
  loader->arena = &self->weights;
  loader->qtype = FX_Q_NONE;
  loader->compute = self->dtype;
  loader->what = "VAE";
  self->info = info_of (&self->config);
  if (!flux_loader_run (loader, load_parts, self, error))
    return NULL;
  return g_steal_pointer (&self);
}

FluxVae *
flux_vae_load (const char *dir, fx_backend *b, FluxVaeParts parts,
    FluxProgressFunc progress, gpointer data, GError **error)
{
  g_autofree char *folder = find_folder (dir);
  g_autoptr (FluxSafetensors) file = NULL;
  g_autoptr (FluxVae) self = vae_new (b, parts);
  FluxLoader loader = {.progress = progress, .progress_data = data};

  if (!flux_vae_config_read (folder, &self->config, error))
    return NULL;
  file = flux_safetensors_open (folder, error);
  if (file == NULL)
    return NULL;
  loader.file = file;
  return load_from (g_steal_pointer (&self), &loader, error);
}

FluxVae *
flux_vae_new_planned (fx_backend *b, FluxVaeParts parts, GError **error)
{
  FluxVae *self = vae_new (b, parts);
  FluxLoader loader = {.file = NULL};

  flux_vae_config_init (&self->config);
  return load_from (self, &loader, error);
}

void
flux_vae_free (FluxVae *self)
{
  if (self == NULL)
    return;
  fx_arena_clear (&self->work);
  fx_arena_clear (&self->weights);
  g_free (self);
}

const FluxVaeInfo *
flux_vae_get_info (FluxVae *self)
{
  return &self->info;
}

const fx_arena *
flux_vae_get_weights (FluxVae *self)
{
  return &self->weights;
}

gsize
flux_vae_get_bytes (FluxVae *self)
{
  return self->weights.size + self->work.size;
}

/* Room for a pass; memory grows with the largest image so far. */
static int
reserve (FluxVae *self, FluxVaePass *pass)
{
  gboolean fits = self->work.base != NULL;

  for (int i = 0; i < FLUX_VAE_SLOTS; i++) {
    fits = fits && pass->bytes[i] <= self->slot_bytes[i];
    self->slot_bytes[i] = MAX (self->slot_bytes[i], pass->bytes[i]);
  }
  if (!fits) {
    fx_arena_clear (&self->work);
    fx_arena_init (&self->work, self->backend, "VAE work");
    for (int i = 0; i < FLUX_VAE_SLOTS; i++)
      FX_TRY (fx_arena_take (&self->work, self->slot_bytes[i], &pass->slots[i]));
    fx_arena_rewind (&self->work, 0);
    FX_TRY (fx_arena_reserve (&self->work, self->work.high));
  }
  fx_arena_rewind (&self->work, 0);
  for (int i = 0; i < FLUX_VAE_SLOTS; i++)
    FX_TRY (fx_arena_take (&self->work, self->slot_bytes[i], &pass->slots[i]));
  return FX_OK;
}

typedef int (*run_func) (
    FluxVaePass *pass, const FluxVaeConfig *c, const FluxVaeNet *net, FluxVaeImage *x);

/* host [height * width, net->in] -> out (allocated here) [h * w, net->out]. */
static int
run (FluxVae *self, run_func func, const FluxVaeNet *net, const float *host, int height,
    int width, float **out, gsize *n_out)
{
  fx_dtype dtype = self->dtype;
  FluxVaePass pass = {.backend = self->backend,
      .dtype = dtype,
      .groups = self->config.groups,
      .measuring = TRUE};
  gsize n = (gsize)height * (gsize)width * (gsize)net->in, size = fx_dtype_size (dtype);
  g_autofree guint8 *converted = NULL;
  FluxVaeImage x;

  FX_TRY (flux_vae_take (&pass, 0, height, width, net->in, &x));
  FX_TRY (func (&pass, &self->config, net, &x));
  FX_TRY (reserve (self, &pass));
  pass.measuring = FALSE;
  FX_TRY (flux_vae_take (&pass, 0, height, width, net->in, &x));
  if (dtype != FX_F32) {
    converted = g_malloc (n * size);
    FX_TRY (fx_convert (converted, dtype, host, FX_F32, n));
  }
  FX_TRY (fx_upload (self->backend, x.m.p,
      converted != NULL ? (gconstpointer)converted : host, n * size));
  FX_TRY (func (&pass, &self->config, net, &x));
  *n_out = (gsize)(x.m.rows * x.m.cols);
  *out = g_new (float, *n_out);
  if (dtype == FX_F32)
    return fx_download (self->backend, *out, x.m.p, *n_out * size);
  g_free (converted);
  converted = g_malloc (*n_out * size);
  FX_TRY (fx_download (self->backend, converted, x.m.p, *n_out * size));
  return fx_convert (*out, FX_F32, converted, dtype, *n_out);
}

static gboolean
check_parts (FluxVae *self, FluxVaeParts part, const char *name, GError **error)
{
  if (self->parts & part)
    return TRUE;
  g_set_error (
      error, FLUX_ERROR, FLUX_ERROR_SETTINGS, "The VAE was loaded without its %s.", name);
  return FALSE;
}

gboolean
flux_vae_encode (FluxVae *self, const guint8 *rgb, int width, int height, int stride,
    float *moments, GError **error)
{
  int channels = 2 * self->config.latent_channels, unit = self->info.downscale;
  g_autofree float *pixels = NULL, *out = NULL;
  gsize n_out, cells;
  int status;

  if (!check_parts (self, FLUX_VAE_ENCODER, "encoder", error))
    return FALSE;
  if (width < unit || height < unit || width % unit != 0 || height % unit != 0 ||
      width > MAX_SIDE || height > MAX_SIDE || stride < 3 * width) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "The VAE cannot encode a picture of %d x %d: both sides must be multiples of %d, "
        "at most %d.",
        width, height, unit, MAX_SIDE);
    return FALSE;
  }
  pixels = g_new (float, 3 * (gsize)width * (gsize)height);
  for (int y = 0; y < height; y++)
    for (int i = 0; i < 3 * width; i++)
      pixels[(gsize)y * 3 * (gsize)width + (gsize)i] =
          2.0f * ((float)rgb[(gsize)y * (gsize)stride + (gsize)i] / 255.0f) - 1.0f;
  status = run (
      self, flux_vae_run_encoder, &self->encoder, pixels, height, width, &out, &n_out);
  if (status != FX_OK) {
    flux_error_from_fx (error, status, "The VAE failed to encode");
    return FALSE;
  }
  cells = n_out / (gsize)channels;
  for (gsize i = 0; i < cells; i++)
    for (int c = 0; c < channels; c++) {
      float v = out[i * (gsize)channels + (gsize)c];
      if (c >= channels / 2)
        v = CLAMP (v, -30.0f, 20.0f);
      moments[(gsize)c * cells + i] = v;
    }
  return TRUE;
}

gboolean
flux_vae_decode (
    FluxVae *self, const float *latents, int w, int h, float *image, GError **error)
{
  gsize channels = (gsize)self->config.latent_channels, cells, pixels, n_out;
  g_autofree float *turned = NULL, *out = NULL;
  int status, limit = MAX_SIDE / self->info.downscale;

  if (!check_parts (self, FLUX_VAE_DECODER, "decoder", error))
    return FALSE;
  if (w < 1 || h < 1 || w > limit || h > limit) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "The VAE cannot decode latents of %d x %d: both sides must be within 1..%d.", w,
        h, limit);
    return FALSE;
  }
  cells = (gsize)w * (gsize)h;
  turned = g_new (float, cells *channels);
  for (gsize c = 0; c < channels; c++)
    for (gsize i = 0; i < cells; i++)
      turned[i * channels + c] = latents[c * cells + i];
  status = run (self, flux_vae_run_decoder, &self->decoder, turned, h, w, &out, &n_out);
  if (status != FX_OK) {
    flux_error_from_fx (error, status, "The VAE failed to decode");
    return FALSE;
  }
  pixels = n_out / 3;
  for (gsize i = 0; i < pixels; i++)
    for (gsize c = 0; c < 3; c++)
      image[c * pixels + i] = out[i * 3 + c];
  return TRUE;
}

/* flux/model.c: the shared, frozen base. SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flux/model.h"

#include <string.h>

#include "flux/error.h"
#include "flux/files/gemm-plans.h"

struct _FluxModel {
  gint ref_count; /* under registry_lock, so that the last unref and a lookup cannot cross
                   */
  char *key;
  char *fingerprint;
  fx_backend *backend;
  FluxConfig config;
  FluxTransformer *transformer; /* NULL while FLUX_OFFLOAD_MODEL has it closed */
  FluxOffload offload;
  char *path; /* and the rest of what loads it again */
  fx_qtype qtype;
  FluxWeightsCache *cache; /* not owned */
  GMutex mutex;
  GCond turn;
  guint64 next_ticket, serving;
};

/* The project's only global: what is loaded in this process. A key whose value is NULL is
 * being loaded by another thread. */
static GMutex registry_lock;
static GCond registry_changed;
static GHashTable *registry;

gboolean
flux_device_parse (const char *text, int *device, GError **error)
{
  guint64 ordinal;

  if (text == NULL || strcmp (text, "auto") == 0)
    *device = FLUX_DEVICE_AUTO;
  else if (strcmp (text, "cpu") == 0)
    *device = FLUX_DEVICE_CPU;
  else if (strcmp (text, "cuda") == 0)
    *device = 0;
  else if (g_str_has_prefix (text, "cuda:") &&
           g_ascii_string_to_unsigned (text + 5, 10, 0, 1023, &ordinal, NULL))
    *device = (int)ordinal;
  else {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "There is no device '%s'; use auto, cpu, cuda or cuda:N.", text);
    return FALSE;
  }
  return TRUE;
}

/* Why there is no backend on a GPU, from fx_error_message(). */
static const char *
cuda_reason (void)
{
  const char *message = fx_error_message ();

  return g_str_has_prefix (message, "cuda: ") ? message + strlen ("cuda: ") : message;
}

static void
set_cuda_error (GError **error, int device)
{
  if (fx_error_status () == FX_ERR_NO_MODULE)
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_NOT_FOUND,
        "CUDA device %d cannot be used, as the CUDA module libfxcuda.so is not "
        "installed: build with -Dcuda=enabled, or set device=cpu.",
        device);
  else
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_NOT_FOUND,
        "CUDA device %d cannot be used: %s; set device=cpu, or device=auto to fall back "
        "to it.",
        device, cuda_reason ());
}

static void
set_fallback (GError **fallback)
{
  FluxError code = FLUX_ERROR_DEVICE;

  if (fallback == NULL)
    return;
  g_clear_error (fallback);
  if (fx_error_status () == FX_ERR_NO_MODULE || fx_error_status () == FX_ERR_NO_DEVICE)
    code = FLUX_ERROR_NOT_FOUND;
  else if (fx_error_status () == FX_ERR_MODULE)
    code = FLUX_ERROR_SETTINGS;
  g_set_error (fallback, FLUX_ERROR, code, "device=auto takes the CPU: %s%s.",
      cuda_reason (),
      code != FLUX_ERROR_NOT_FOUND ? "; set device=cpu if that is meant" : "");
}

fx_backend *
flux_backend_choose (int device, fx_dtype compute, GError **fallback, GError **error)
{
  fx_backend *b = NULL;

  if (device == FLUX_DEVICE_AUTO || device >= 0)
    b = fx_cuda_new (NULL, MAX (device, 0), compute);
  if (b != NULL) {
    flux_gemm_plans_read (b);
    return b;
  }
  if (device >= 0) {
    set_cuda_error (error, device);
    return NULL;
  }
  if (compute != FX_N_DTYPES && compute != FX_F32) {
    g_autofree char *why =
        device == FLUX_DEVICE_AUTO
            ? g_strdup_printf (", and no GPU can be used (%s)", cuda_reason ())
            : NULL;

    g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
        "The CPU computes in float32 only%s: leave the compute dtype at auto.",
        why != NULL ? why : "");
    return NULL;
  }
  if (device == FLUX_DEVICE_AUTO)
    set_fallback (fallback);
  b = fx_cpu_new (0);
  if (b == NULL)
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_NO_SPACE,
        "The CPU backend does not start: %s.", fx_error_message ());
  return b;
}

fx_backend *
flux_backend_new (int device, fx_dtype compute, GError **error)
{
  return flux_backend_choose (device, compute, NULL, error);
}

void
flux_backend_free (fx_backend *b)
{
  if (b != NULL)
    flux_gemm_plans_write (b);
  fx_backend_free (b);
}

/* The identity of the weights, not of the path: two links to one folder share a model. */
static char *
fingerprint_of (const char *path, GError **error)
{
  g_autofree char *sub = g_build_filename (path, "transformer", NULL);
  g_autoptr (FluxSafetensors) file =
      flux_safetensors_open (g_file_test (sub, G_FILE_TEST_IS_DIR) ? sub : path, error);

  return file != NULL ? flux_safetensors_fingerprint (file) : NULL;
}

static void
model_free (FluxModel *self)
{
  flux_transformer_unref (self->transformer);
  flux_backend_free (self->backend);
  g_mutex_clear (&self->mutex);
  g_cond_clear (&self->turn);
  g_free (self->fingerprint);
  g_free (self->path);
  g_free (self->key);
  g_free (self);
}

/* b is taken over. */
static FluxModel *
model_new (fx_backend *b, const char *name, const char *fingerprint)
{
  FluxModel *self = g_new0 (FluxModel, 1);

  self->ref_count = 1;
  self->key = g_strdup (name);
  self->fingerprint = g_strdup (fingerprint);
  g_mutex_init (&self->mutex);
  g_cond_init (&self->turn);
  self->backend = b;
  return self;
}

static fx_home
home_of (FluxOffload offload)
{
  return offload == FLUX_OFFLOAD_STREAM ? FX_HOME_HOST : FX_HOME_DEVICE;
}

FluxModel *
flux_model_new_planned (const fx_backend *b, const FluxModelKey *key, GError **error)
{
  fx_backend *p = fx_plan_new (b->compute);
  FluxTransformer *t;

  if (p == NULL) {
    flux_error_from_fx (error, FX_ERR_MEMORY, "Could not plan");
    return NULL;
  }
  p->has_fp8 = b->has_fp8;
  t = flux_transformer_load_planned (
      key->path, p, key->qtype, home_of (key->offload), error);
  if (t != NULL)
    return flux_model_new_for (t);
  fx_backend_free (p);
  return NULL;
}

FluxModel *
flux_model_new_for (FluxTransformer *transformer)
{
  FluxModel *self = model_new (flux_transformer_get_backend (transformer), NULL, "");

  self->transformer = transformer;
  self->config = *flux_transformer_get_config (transformer);
  return self;
}

static FluxModel *
load (const FluxModelKey *key, fx_backend *b, const char *name, const char *fingerprint,
    FluxProgressFunc progress, gpointer data, GError **error)
{
  FluxModel *self = model_new (b, name, fingerprint);

  self->path = g_strdup (key->path);
  self->qtype = key->qtype;
  self->offload = key->offload;
  self->cache = key->cache;
  if (!flux_config_read (key->path, &self->config, error) ||
      (key->room != NULL && !key->room (b, key->room_data, error)) ||
      (key->offload != FLUX_OFFLOAD_MODEL &&
          !flux_model_open_weights (self, progress, data, error)))
    g_clear_pointer (&self, model_free);
  else if (name != NULL)
    self->cache = NULL; /* who loaded it may be gone when others still share it */
  return self;
}

/* Waits while another thread loads it; FALSE: this thread has announced that it does. */
static gboolean
find_or_announce (const char *name, FluxModel **model)
{
  gpointer value;
  gboolean found;

  g_mutex_lock (&registry_lock);
  if (registry == NULL)
    registry = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL);
  while ((found = g_hash_table_lookup_extended (registry, name, NULL, &value)) &&
         value == NULL)
    g_cond_wait (&registry_changed, &registry_lock);
  if (found) {
    *model = value;
    (*model)->ref_count++;
  } else {
    g_hash_table_insert (registry, g_strdup (name), NULL);
  }
  g_mutex_unlock (&registry_lock);
  return found;
}

static void
announce_end (const char *name, FluxModel *model)
{
  g_mutex_lock (&registry_lock);
  if (model != NULL)
    g_hash_table_insert (registry, g_strdup (name), model);
  else
    g_hash_table_remove (registry, name);
  g_cond_broadcast (&registry_changed);
  g_mutex_unlock (&registry_lock);
}

FluxModel *
flux_model_acquire (
    const FluxModelKey *key, FluxProgressFunc progress, gpointer data, GError **error)
{
  g_autofree char *fingerprint = NULL, *name = NULL;
  FluxModel *self = NULL;
  fx_backend *b;

  if (key->offload == FLUX_OFFLOAD_MODEL)
    return flux_model_load (key, progress, data, error);
  fingerprint = fingerprint_of (key->path, error);
  if (fingerprint == NULL)
    return NULL;
  /* The backend says what "auto" and "the device's best" come to, so that who asks for
   * them shares with who asks for the same by name. */
  b = flux_backend_choose (key->device, key->compute, key->fallback, error);
  if (b == NULL)
    return NULL;
  name = g_strdup_printf ("%s/%d/%d/%s/%d/%d", fingerprint, (int)key->qtype,
      (int)b->compute, b->name, b->device, (int)key->offload);
  if (find_or_announce (name, &self)) {
    fx_backend_free (b);
    return self;
  }
  self = load (key, b, name, fingerprint, progress, data, error);
  announce_end (name, self);
  return self;
}

FluxModel *
flux_model_load (
    const FluxModelKey *key, FluxProgressFunc progress, gpointer data, GError **error)
{
  g_autofree char *fingerprint = fingerprint_of (key->path, error);
  fx_backend *b = fingerprint != NULL ? flux_backend_choose (key->device, key->compute,
                                            key->fallback, error)
                                      : NULL;

  return b != NULL ? load (key, b, NULL, fingerprint, progress, data, error) : NULL;
}

FluxModel *
flux_model_ref (FluxModel *self)
{
  g_mutex_lock (&registry_lock);
  self->ref_count++;
  g_mutex_unlock (&registry_lock);
  return self;
}

void
flux_model_unref (FluxModel *self)
{
  gboolean last;

  if (self == NULL)
    return;
  g_mutex_lock (&registry_lock);
  last = --self->ref_count == 0;
  if (last && self->key != NULL)
    g_hash_table_remove (registry, self->key);
  g_mutex_unlock (&registry_lock);
  if (last)
    model_free (self);
}

FluxTransformer *
flux_model_get_transformer (FluxModel *self)
{
  return self->transformer;
}

fx_backend *
flux_model_get_backend (FluxModel *self)
{
  return self->backend;
}

const FluxConfig *
flux_model_get_config (FluxModel *self)
{
  return &self->config;
}

FluxOffload
flux_model_get_offload (FluxModel *self)
{
  return self->offload;
}

gboolean
flux_model_open_weights (
    FluxModel *self, FluxProgressFunc progress, gpointer data, GError **error)
{
  if (self->transformer == NULL)
    self->transformer = flux_transformer_load (self->path, self->backend, self->qtype,
        home_of (self->offload), self->cache, progress, data, error);
  return self->transformer != NULL;
}

void
flux_model_close_weights (FluxModel *self)
{
  if (self->offload == FLUX_OFFLOAD_MODEL)
    g_clear_pointer (&self->transformer, flux_transformer_unref);
}

const char *
flux_model_get_fingerprint (FluxModel *self)
{
  return self->fingerprint;
}

void
flux_model_lock (FluxModel *self)
{
  guint64 ticket;

  g_mutex_lock (&self->mutex);
  ticket = self->next_ticket++;
  while (ticket != self->serving)
    g_cond_wait (&self->turn, &self->mutex);
  g_mutex_unlock (&self->mutex);
}

void
flux_model_unlock (FluxModel *self)
{
  g_mutex_lock (&self->mutex);
  self->serving++;
  g_cond_broadcast (&self->turn);
  g_mutex_unlock (&self->mutex);
}

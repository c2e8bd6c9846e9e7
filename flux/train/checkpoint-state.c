/* flux/train/checkpoint-state.c: state.safetensors of a checkpoint.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Tensors: for each tensor of the adapter, under its name in the adapter's file, the
 * optimiser's .state1 and .state2 (fp32, or U8 with .absmax1 and .absmax2 for each 256
 * elements), and where products are computed as timing chose, gemm_plans (bytes that a
 * backend of the same kind takes; optional). Metadata: format, step, seed (the key of all
 * draws), base (fingerprint), position (the caller's), config (JSON), quantization (of
 * the base, for the caller to compare; not in older files), and with loss scaling
 * loss_scale and loss_scale_good (steps since it changed). A file is checked as a whole
 * before anything of it is taken. */
#include <json-glib/json-glib.h>
#include <math.h>
#include <string.h>

#include "flux/error.h"
#include "flux/files/config-json.h"
#include "flux/files/gemm-plans.h"
#include "flux/train/checkpoint-private.h"

#define FORMAT "gst-flux trainer state 1"
#define PLANS "gemm_plans"

static const char *
optimizer_name (FluxOptimizer o)
{
  return o == FLUX_OPTIMIZER_ADAMW ? "adamw" : "adamw8bit";
}

static void
add_number (GString *s, const char *name, double value)
{
  char text[G_ASCII_DTOSTR_BUF_SIZE];

  /* json-glib's generator makes "1e-08.0" of 1e-8. */
  g_string_append_printf (
      s, ", \"%s\": %s", name, g_ascii_dtostr (text, sizeof text, value));
}

static void
add_string (GString *s, const char *name, const char *value)
{
  g_autoptr (JsonNode) node = json_node_new (JSON_NODE_VALUE);
  g_autofree char *quoted = NULL;

  json_node_set_string (node, value);
  quoted = json_to_string (node, FALSE);
  g_string_append_printf (s, ", \"%s\": %s", name, quoted);
}

/* What the run was: rank, targets and optimizer are checked on resuming, the rest is for
 * people. */
static char *
config_to_json (const FluxTrainConfig *c)
{
  GString *s = g_string_new (NULL);

  g_string_append_printf (s, "{\"rank\": %d", c->rank);
  add_number (s, "alpha", c->alpha > 0 ? c->alpha : c->rank);
  add_string (s, "targets", c->targets);
  add_string (s, "optimizer", optimizer_name (c->optimizer));
  add_number (s, "learning_rate", c->learning_rate);
  add_number (s, "beta1", c->beta1);
  add_number (s, "beta2", c->beta2);
  add_number (s, "epsilon", c->epsilon);
  add_number (s, "weight_decay", c->weight_decay);
  add_number (s, "lr_scheduler", c->lr_scheduler);
  add_number (s, "warmup_steps", (double)c->warmup_steps);
  add_number (s, "max_steps", (double)c->max_steps);
  add_number (s, "accumulate", c->accumulate);
  add_number (s, "max_grad_norm", c->max_grad_norm);
  add_number (s, "guidance", c->guidance);
  add_number (s, "caption_dropout", c->caption_dropout);
  add_number (s, "weighting", c->weighting);
  g_string_append_c (s, '}');
  return g_string_free (s, FALSE);
}

/* "transformer.SLOT.lora_A.weight.PIECE" */
static char *
piece_name (FluxTrainer *self, const FluxLoraTensor *t, const char *piece)
{
  return g_strdup_printf ("transformer.%s.lora_%c.weight.%s",
      flux_lora_get_slot (self->lora, t->slot)->name, t->is_b ? 'B' : 'A', piece);
}

gboolean
flux_state_save (FluxTrainer *self, const char *path, GError **error)
{
  g_autoptr (GArray) sources = g_array_new (FALSE, TRUE, sizeof (FluxTensorSource));
  g_autoptr (GPtrArray) owned = g_ptr_array_new_with_free_func (g_free);
  g_autoptr (GBytes) plans = flux_gemm_plans_get (self->backend);
  g_autofree char *step = g_strdup_printf ("%" G_GUINT64_FORMAT, self->step);
  g_autofree char *seed = g_strdup_printf ("%" G_GUINT64_FORMAT, self->c.seed);
  g_autofree char *config = config_to_json (&self->c);
  g_autofree char *scale = g_strdup_printf ("%.0f", self->loss_scale.scale);
  g_autofree char *good = g_strdup_printf ("%" G_GUINT64_FORMAT, self->loss_scale.good);
  /* The last two only where there is loss scaling. */
  const char *metadata[] = {"format", FORMAT, "step", step, "seed", seed, "base",
      flux_model_get_fingerprint (self->model), "position", self->position, "config",
      config, "quantization",
      flux_transformer_get_quantization (flux_model_get_transformer (self->model)),
      self->loss_scale.dynamic ? "loss_scale" : NULL, scale, "loss_scale_good", good,
      NULL};
  guint n;
  const FluxLoraTensor *tensors = flux_lora_get_tensors (self->lora, &n);

  for (guint i = 0; i < n; i++) {
    FluxAdamPiece pieces[4];
    guint n_pieces = flux_adam_pieces (self->adam, i, pieces);

    for (guint j = 0; j < n_pieces; j++) {
      gsize bytes = pieces[j].n * fx_dtype_size (pieces[j].dtype);
      FluxTensorSource t = {.dtype = pieces[j].dtype, .n_dims = 1};
      void *data = g_malloc (bytes);
      int status = fx_download (self->backend, data, pieces[j].p, bytes);

      g_ptr_array_add (owned, data);
      if (status != FX_OK) {
        flux_error_from_fx (error, status, "Could not read the optimiser's state");
        return FALSE;
      }
      t.name = piece_name (self, &tensors[i], pieces[j].name);
      g_ptr_array_add (owned, (gpointer)t.name);
      t.dims[0] = (gint64)pieces[j].n;
      t.data = data;
      g_array_append_val (sources, t);
    }
  }
  if (plans != NULL) {
    FluxTensorSource t = {.name = PLANS,
        .dtype = FX_U8,
        .n_dims = 1,
        .dims = {(gint64)g_bytes_get_size (plans)},
        .data = g_bytes_get_data (plans, NULL)};

    g_array_append_val (sources, t);
  }
  return flux_safetensors_write (
      path, (const FluxTensorSource *)sources->data, sources->len, metadata, error);
}

static gboolean
differs (GError **error, const char *path, const char *what, const char *theirs,
    const char *ours)
{
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_MISMATCH,
      "The checkpoint '%s' cannot be resumed here: its %s is %s, this trainer's is %s; "
      "set what it has, or start without resume-from.",
      path, what, theirs, ours);
  return FALSE;
}

static gboolean
check_config (FluxTrainer *self, FluxSafetensors *file, const char *path, GError **error)
{
  const char *text = flux_safetensors_get_metadata (file, "config");
  g_autofree char *where = g_strdup_printf ("\"config\" in '%s'", path);
  g_autoptr (FluxConfigJson) json = NULL;
  const char *targets, *optimizer, *ours = optimizer_name (self->c.optimizer);
  int rank;

  json = flux_config_json_parse (
      text != NULL ? text : "", text != NULL ? strlen (text) : 0, where, error);
  if (json == NULL || !flux_config_json_int (json, "rank", 1, 1 << 20, &rank, error))
    return FALSE;
  targets = flux_config_json_string (json, "targets", error);
  optimizer = targets != NULL ? flux_config_json_string (json, "optimizer", error) : NULL;
  if (optimizer == NULL)
    return FALSE;
  if (rank != self->c.rank) {
    g_autofree char *a = g_strdup_printf ("%d", rank);
    g_autofree char *b = g_strdup_printf ("%d", self->c.rank);

    return differs (error, path, "rank", a, b);
  }
  if (!g_str_equal (optimizer, ours))
    return differs (error, path, "optimizer", optimizer, ours);
  return TRUE;
}

static gboolean
read_number (
    FluxSafetensors *file, const char *key, const char *path, guint64 *v, GError **error)
{
  const char *text = flux_safetensors_get_metadata (file, key);

  if (text != NULL && g_ascii_string_to_unsigned (text, 10, 0, G_MAXUINT64, v, NULL))
    return TRUE;
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
      "'%s' is no state of a training run: its \"%s\" is not a number.", path, key);
  return FALSE;
}

/* Modules of the adapter's file against the trainer's. */
static gboolean
check_adapter (FluxTrainer *self, FluxLora *adapter, const char *path, GError **error)
{
  guint n, m;
  const FluxLoraTensor *ours = flux_lora_get_tensors (self->lora, &n);
  const FluxLoraTensor *theirs = flux_lora_get_tensors (adapter, &m);
  gboolean same = n == m;

  for (guint i = 0; same && i < n; i++)
    same = ours[i].slot == theirs[i].slot && ours[i].is_b == theirs[i].is_b &&
           ours[i].rows == theirs[i].rows && ours[i].cols == theirs[i].cols &&
           ours[i].offset == theirs[i].offset;
  if (!same) {
    g_autofree char *a = g_strdup_printf ("of another choice (%u matrices)", m);
    g_autofree char *b = g_strdup_printf ("\"%s\" (%u)", self->c.targets, n);

    return differs (error, path, "list of target layers", a, b);
  }
  if (flux_lora_get_alpha (adapter) != flux_lora_get_alpha (self->lora)) {
    g_autofree char *a = g_strdup_printf ("%g", flux_lora_get_alpha (adapter));
    g_autofree char *b = g_strdup_printf ("%g", flux_lora_get_alpha (self->lora));

    return differs (error, path, "alpha", a, b);
  }
  return TRUE;
}

static gboolean
is_finite (const FluxTensor *t)
{
  for (gsize i = 0; t->dtype == FX_F32 && i < t->n_elements; i++) {
    float x;

    memcpy (&x, (const char *)t->data + i * sizeof x, sizeof x);
    if (!isfinite (x))
      return FALSE;
  }
  return TRUE;
}

/* Visits every piece of state: checks it, or uploads it when apply. */
static gboolean
each_piece (FluxTrainer *self, FluxSafetensors *file, const char *path, gboolean apply,
    GError **error)
{
  guint n;
  const FluxLoraTensor *tensors = flux_lora_get_tensors (self->lora, &n);

  for (guint i = 0; i < n; i++) {
    FluxAdamPiece pieces[4];
    guint n_pieces = flux_adam_pieces (self->adam, i, pieces);

    for (guint j = 0; j < n_pieces; j++) {
      g_autofree char *name = piece_name (self, &tensors[i], pieces[j].name);
      const FluxTensor *t =
          flux_safetensors_require (file, name, error, 1, (gint64)pieces[j].n);
      int status;

      if (t == NULL)
        return FALSE;
      if (t->dtype != pieces[j].dtype || !is_finite (t)) {
        g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
            "'%s' in '%s' is not the state of an optimiser: it is of type %s, or holds "
            "NaN.",
            name, path, fx_dtype_name (t->dtype));
        return FALSE;
      }
      status =
          apply ? fx_upload (self->backend, pieces[j].p, t->data, t->n_bytes) : FX_OK;
      if (status != FX_OK) {
        flux_error_from_fx (error, status, "Could not restore the optimiser's state");
        return FALSE;
      }
    }
  }
  return TRUE;
}

/* A run that scales its loss goes on where the other was; one that did not scale leaves
 * it at its start. */
static gboolean
read_loss_scale (FluxTrainer *self, FluxSafetensors *file, const char *path,
    FluxLossScale *scale, GError **error)
{
  const char *text = flux_safetensors_get_metadata (file, "loss_scale");
  char *end;

  *scale = self->loss_scale;
  if (!scale->dynamic || text == NULL)
    return TRUE;
  scale->scale = g_ascii_strtod (text, &end);
  if (*end == '\0' && flux_loss_scale_is_valid (scale->scale))
    return read_number (file, "loss_scale_good", path, &scale->good, error);
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
      "'%s' is no state of a training run: its \"loss_scale\" is not a power of two.",
      path);
  return FALSE;
}

static gboolean
copy_parameters (FluxTrainer *self, FluxLora *adapter, GError **error)
{
  gsize bytes = flux_lora_n_flat (self->lora) * sizeof (float);
  g_autofree void *data = g_malloc (bytes);
  int status = fx_download (self->backend, data, flux_lora_parameters (adapter), bytes);

  if (status == FX_OK)
    status = fx_upload (self->backend, flux_lora_parameters (self->lora), data, bytes);
  if (status == FX_OK)
    return TRUE;
  flux_error_from_fx (error, status, "Could not restore the adapter");
  return FALSE;
}

/* A run goes on with the products computed as they were. It does without on another GPU,
 * or with bytes that the backend does not know. */
static void
restore_plans (FluxTrainer *self, FluxSafetensors *file)
{
  const FluxTensor *t = flux_safetensors_lookup (file, PLANS);

  if (t != NULL && t->dtype == FX_U8 && t->n_bytes > 0)
    (void)fx_set_gemm_plans (self->backend, t->data, t->n_bytes, true);
}

gboolean
flux_state_load (FluxTrainer *self, const char *path, FluxLora *adapter, GError **error)
{
  g_autoptr (FluxSafetensors) file = flux_safetensors_open (path, error);
  const char *base, *position, *ours = flux_model_get_fingerprint (self->model);
  guint64 step, seed;
  FluxLossScale scale;

  if (file == NULL)
    return FALSE;
  if (g_strcmp0 (flux_safetensors_get_metadata (file, "format"), FORMAT) != 0) {
    g_set_error (error, FLUX_ERROR, FLUX_ERROR_FORMAT,
        "'%s' is no state of a training run that this version can read.", path);
    return FALSE;
  }
  base = flux_safetensors_get_metadata (file, "base");
  if (g_strcmp0 (base, ours) != 0)
    return differs (error, path, "base model", base != NULL ? base : "unknown", ours);
  if (!check_config (self, file, path, error) ||
      !check_adapter (self, adapter, path, error) ||
      !read_number (file, "step", path, &step, error) ||
      !read_number (file, "seed", path, &seed, error) ||
      !read_loss_scale (self, file, path, &scale, error) ||
      !each_piece (self, file, path, FALSE, error))
    return FALSE;
  if (!each_piece (self, file, path, TRUE, error) ||
      !copy_parameters (self, adapter, error))
    return FALSE;
  restore_plans (self, file);
  self->step = step;
  self->c.seed = seed;
  g_free (self->quantization);
  self->quantization = g_strdup (flux_safetensors_get_metadata (file, "quantization"));
  self->loss_scale = scale;
  position = flux_safetensors_get_metadata (file, "position");
  flux_trainer_set_position (self, position);
  return TRUE;
}
